//! registries.conf, version 2: its grammar, and how drop-in files are laid over it.
//!
//! Specification: containers-registries.conf(5). An unknown key is passed over and named, since a newer
//! version of the other engines may know it. Knows nothing of what the rules lead to (`registries`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use crate::{ConfigError, Environment};

/// The contents of one file, or of several laid over each other.
#[derive(Debug, Default)]
pub(crate) struct RegistriesFile {
    /// Registries that short names are looked for in; `None` if no file says.
    pub(crate) search: Option<Vec<String>>,
    /// Short names with one meaning; an empty one means that the alias is withdrawn.
    pub(crate) aliases: BTreeMap<String, String>,
    /// What to do with a short name that several search registries may have.
    pub(crate) short_name_mode: Option<ShortNameMode>,
    /// Names of programs that hold credentials, without `docker-credential-`.
    pub(crate) credential_helpers: Vec<String>,
    /// Rules by prefix.
    pub(crate) rules: BTreeMap<String, Rule>,
    /// Keys that are passed over, each with its file.
    pub(crate) unknown: Vec<(PathBuf, String)>,
}

/// One `[[registry]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// What takes the place of the prefix; `None` leaves the name as it is.
    pub(crate) location: Option<String>,
    pub(crate) insecure: bool,
    pub(crate) blocked: bool,
    /// Tried in order before the location.
    pub(crate) mirrors: Vec<Mirror>,
}

/// One `[[registry.mirror]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) location: String,
    pub(crate) insecure: bool,
    pub(crate) serves: Serves,
}

/// Which references a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Serves {
    #[serde(rename = "all")]
    All,
    #[serde(rename = "digest-only")]
    Digests,
    #[serde(rename = "tag-only")]
    Tags,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    unqualified_search_registries: Option<Vec<Spanned<String>>>,
    short_name_mode: Option<ShortNameMode>,
    #[serde(rename = "additional-layer-store-auth-helper")]
    _additional_layer_store_auth_helper: Option<String>,
    credential_helpers: Option<Vec<String>>,
    #[serde(default)]
    aliases: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    registry: Vec<Spanned<RegistryTable>>,
    registries: Option<Spanned<IgnoredAny>>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

/// What to do with a short name that several search registries may have. Nobody is asked: a
/// batch job cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ShortNameMode {
    /// It is an error.
    Enforcing,
    /// All are tried in order.
    #[serde(alias = "")]
    Permissive,
    /// All are tried in order.
    Disabled,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryTable {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: Spanned<String>,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Serves>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

/// Parses the text of one file. `path` is for messages.
pub(crate) fn parse(text: &str, path: &Path) -> Result<RegistriesFile, ConfigError> {
    let at = Place { text, path };
    let file: File = toml::from_str(text).map_err(|error| {
        at.error(error.span().map_or(0, |span| span.start), error.message().to_owned())
    })?;
    let unknown = unknown_keys(&file).map(|key| (path.to_owned(), key)).collect();
    if let Some(old) = file.registries {
        return Err(ConfigError::Version1 {
            path: path.to_owned(),
            line: line_of(text, old.span().start),
        });
    }
    let mut search = None;
    if let Some(hosts) = file.unqualified_search_registries {
        let hosts = hosts.iter().map(|host| at.location(host)).collect::<Result<_, _>>()?;
        search = Some(hosts);
    }
    let mut aliases = BTreeMap::new();
    for (name, target) in file.aliases {
        let text = target.get_ref().as_str();
        if !text.is_empty() && !text.contains('/') {
            let what = format!("the alias `{name}` must name a registry and a repository");
            return Err(at.error(target.span().start, what));
        }
        // The tag is the short name's own.
        if text.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
            let what = format!("the alias `{name}` must name a repository, without tag and digest");
            return Err(at.error(target.span().start, what));
        }
        aliases.insert(name, text.to_owned());
    }
    let mut rules = BTreeMap::new();
    let mut places = BTreeMap::new();
    for table in file.registry {
        let (prefix, rule) = at.rule(&table)?;
        let place = rule.location.clone().unwrap_or_else(|| prefix.clone());
        let settings = (rule.insecure, rule.blocked);
        if *places.entry(place.clone()).or_insert(settings) != settings {
            let what = format!(
                "`insecure` or `blocked` is not what another `[[registry]]` says of `{place}`"
            );
            return Err(at.error(table.span().start, what));
        }
        // The first of several for one prefix counts.
        rules.entry(prefix).or_insert(rule);
    }
    let credential_helpers = file.credential_helpers.unwrap_or_default();
    let short_name_mode = file.short_name_mode;
    Ok(RegistriesFile { search, aliases, short_name_mode, credential_helpers, rules, unknown })
}

/// The keys that mean nothing here, with the tables they are in.
fn unknown_keys(file: &File) -> impl Iterator<Item = String> {
    let top = file.unknown.keys().cloned();
    let tables = file.registry.iter().map(Spanned::get_ref);
    let of_registries = tables.clone().flat_map(|table| table.unknown.keys());
    let of_mirrors =
        tables.flat_map(|table| &table.mirror).flat_map(|mirror| mirror.unknown.keys());
    top.chain(of_registries.map(|key| format!("registry.{key}")))
        .chain(of_mirrors.map(|key| format!("registry.mirror.{key}")))
}

/// Where in which file something is, for messages.
struct Place<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Place<'_> {
    fn error(&self, offset: usize, message: String) -> ConfigError {
        let line = line_of(self.text, offset);
        ConfigError::Toml { path: self.path.to_owned(), line, message }
    }

    /// A location is `HOST[:PORT][/PATH]`.
    fn location(&self, given: &Spanned<String>) -> Result<String, ConfigError> {
        let text = given.get_ref().trim_end_matches('/');
        if text.is_empty() || text.contains("://") {
            let what = format!("`{}` is no location; expected HOST[:PORT][/PATH]", given.get_ref());
            return Err(self.error(given.span().start, what));
        }
        Ok(text.to_owned())
    }

    fn rule(&self, spanned: &Spanned<RegistryTable>) -> Result<(String, Rule), ConfigError> {
        let table = spanned.get_ref();
        let start = spanned.span().start;
        let checked = |value: &Option<String>| match value.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => self.location(&Spanned::new(start..start, text.to_owned())).map(Some),
        };
        let (prefix, location) = (checked(&table.prefix)?, checked(&table.location)?);
        let Some(prefix) = prefix.or_else(|| location.clone()) else {
            return Err(
                self.error(start, "`[[registry]]` has neither `location` nor `prefix`".into())
            );
        };
        let wildcard = prefix.starts_with("*.");
        if prefix.contains('*') && (!wildcard || prefix[2..].contains(['*', '/'])) {
            let what = format!("`{prefix}`: a wildcard stands for the first part of a host only");
            return Err(self.error(start, what));
        }
        if location.is_none() && !wildcard && !table.blocked {
            return Err(self.error(start, format!("the registry `{prefix}` has no `location`")));
        }
        let mut mirrors = Vec::new();
        for mirror in &table.mirror {
            if table.mirror_by_digest_only && mirror.pull_from_mirror.is_some() {
                let what = "`mirror-by-digest-only` and a mirror's `pull-from-mirror` exclude each \
                            other";
                return Err(self.error(mirror.location.span().start, what.to_owned()));
            }
            let digests = if table.mirror_by_digest_only { Serves::Digests } else { Serves::All };
            mirrors.push(Mirror {
                location: self.location(&mirror.location)?,
                insecure: mirror.insecure,
                serves: mirror.pull_from_mirror.unwrap_or(digests),
            });
        }
        let (insecure, blocked) = (table.insecure, table.blocked);
        Ok((prefix, Rule { location, insecure, blocked, mirrors }))
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

impl RegistriesFile {
    /// Lays `later` over this: lists are replaced, tables replaced by prefix and by alias.
    fn overlay(&mut self, later: Self) {
        if later.search.is_some() {
            self.search = later.search;
        }
        self.short_name_mode = later.short_name_mode.or(self.short_name_mode);
        if !later.credential_helpers.is_empty() {
            self.credential_helpers = later.credential_helpers;
        }
        self.aliases.extend(later.aliases);
        self.rules.extend(later.rules);
        self.unknown.extend(later.unknown);
    }
}

/// Reads all files that apply, in order; files that do not exist are skipped.
///
/// `CONTAINERS_REGISTRIES_CONF` takes the place of the main file. A user's own main file hides
/// the system's configuration altogether, drop-ins included, as Podman does it. Last come the
/// aliases that other engines remember.
pub(crate) fn load(environment: &Environment) -> Result<RegistriesFile, ConfigError> {
    let mut all = RegistriesFile::default();
    for path in paths(environment)? {
        let text = match fs_err::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(ConfigError::Read { path, source: bare(&error) }),
        };
        log::debug!("registries configuration `{}`", path.display());
        all.overlay(parse(&text, &path)?);
    }
    for path in environment.short_name_caches() {
        match fs_err::read_to_string(&path) {
            // What a user once chose counts more than what files say.
            Ok(text) => all.aliases.extend(parse(&text, &path)?.aliases),
            Err(error) => log::debug!("no remembered short names: {error}"),
        }
    }
    Ok(all)
}

/// The system's error without the path, which the message has already.
pub(crate) fn bare(error: &std::io::Error) -> std::io::Error {
    error
        .raw_os_error()
        .map_or_else(|| std::io::Error::from(error.kind()), std::io::Error::from_raw_os_error)
}

fn paths(environment: &Environment) -> Result<Vec<PathBuf>, ConfigError> {
    let system = environment.etc().join("containers");
    let user = environment.user_containers();
    let user_main = user.as_ref().map(|folder| folder.join("registries.conf"));
    let named = ["CONTAINERS_REGISTRIES_CONF", "REGISTRIES_CONFIG_PATH"]
        .iter()
        .find_map(|name| environment.var(name));
    let mut folders = Vec::new();
    let main = match (named, user_main.filter(|path| path.exists())) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(path)) => path,
        (None, None) => system.join("registries.conf"),
    };
    if named.is_some() || main.starts_with(&system) {
        folders.push(system.join("registries.conf.d"));
    }
    folders.extend(user.map(|folder| folder.join("registries.conf.d")));
    let mut paths = vec![main];
    for folder in folders {
        paths.extend(drop_ins(&folder)?);
    }
    Ok(paths)
}

/// The `*.conf` files of a directory, sorted by name.
fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(ConfigError::Read { path: folder.to_owned(), source: bare(&error) });
        }
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry
            .map_err(|error| ConfigError::Read { path: folder.to_owned(), source: bare(&error) })?;
        paths.push(entry.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    Ok(paths)
}
