//! The grammar of policy.json. Does no I/O.
//!
//! A key that is unknown, twice there or of another type is an error: a policy that was
//! misspelt must not let anything in.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::identity::Match;
use crate::json::{Fault, Fields, Node};
use crate::key::KeySource;
use crate::subject::check_scope;

/// What a scope asks for. An image is let in if all of a scope's hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// `insecureAcceptAnything`
    AcceptAnything,
    /// `reject`
    Reject,
    /// `sigstoreSigned` with keys: one signature by any of them.
    SigstoreSigned { keys: Vec<KeySource>, identity: Match },
    /// A requirement that is well-formed, and that cannot be checked here: never holds.
    Unsupported(&'static str),
}

/// Requirements by scope.
pub(crate) type Scopes = BTreeMap<String, Vec<Requirement>>;

/// `default` and `transports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) default: Vec<Requirement>,
    pub(crate) transports: BTreeMap<String, Scopes>,
}

/// Reads the document's values.
pub(crate) fn document(node: Node) -> Result<Document, Fault> {
    let mut fields = Fields::of(node, "")?;
    let default = requirements(fields.need("default")?, "default")?;
    let mut transports = BTreeMap::new();
    if let Some(node) = fields.take("transports") {
        let mut all = Fields::of(node, "transports")?;
        for (name, node) in all.rest() {
            let at = all.place(&name);
            transports.insert(name.clone(), scopes(&name, node, &at)?);
        }
    }
    fields.end()?;
    Ok(Document { default, transports })
}

fn scopes(transport: &str, node: Node, at: &str) -> Result<Scopes, Fault> {
    let mut fields = Fields::of(node, at)?;
    let mut scopes = Scopes::new();
    for (scope, node) in fields.rest() {
        let at = fields.place(&scope);
        if !scope.is_empty() {
            check_scope(transport, &scope).map_err(|what| Fault::new(&at, what))?;
        }
        scopes.insert(scope, requirements(node, &at)?);
    }
    Ok(scopes)
}

fn requirements(node: Node, at: &str) -> Result<Vec<Requirement>, Fault> {
    let list = node.list(at)?;
    if list.is_empty() {
        return Err(Fault::new(at, "the list of requirements is empty"));
    }
    let numbered = list.into_iter().enumerate();
    numbered.map(|(number, node)| requirement(node, &format!("{at}[{number}]"))).collect()
}

fn requirement(node: Node, at: &str) -> Result<Requirement, Fault> {
    let mut fields = Fields::of(node, at)?;
    let kind = fields.need_text("type")?;
    let parsed = match kind.as_str() {
        "insecureAcceptAnything" => Requirement::AcceptAnything,
        "reject" => Requirement::Reject,
        "sigstoreSigned" => sigstore_signed(&mut fields, at)?,
        "signedBy" => signed_by(&mut fields, at)?,
        "signedBaseLayer" => {
            let place = fields.place("baseLayerIdentity");
            Match::parse(fields.need("baseLayerIdentity")?, &place)?;
            Requirement::Unsupported("`signedBaseLayer`")
        }
        other => {
            let what = format!("unknown type of requirement `{other}`");
            return Err(Fault::new(&fields.place("type"), what));
        }
    };
    fields.end()?;
    Ok(parsed)
}

fn identity(fields: &mut Fields) -> Result<Match, Fault> {
    let at = fields.place("signedIdentity");
    fields
        .take("signedIdentity")
        .map_or(Ok(Match::RepoDigestOrExact), |node| Match::parse(node, &at))
}

fn sigstore_signed(fields: &mut Fields, at: &str) -> Result<Requirement, Fault> {
    let mut sources: Vec<Vec<KeySource>> = Vec::new();
    sources.extend(paths(fields, "keyPath", "keyPaths")?);
    sources.extend(data(fields, "keyData", "keyDatas")?);
    let log = paths(fields, "rekorPublicKeyPath", "rekorPublicKeyPaths")?.len()
        + data(fields, "rekorPublicKeyData", "rekorPublicKeyDatas")?.len();
    let fulcio = ["caPath", "caData", "oidcIssuer", "subjectEmail"];
    let fulcio = sub_object(fields, "fulcio", &fulcio)?;
    let pki = [
        "caRootsPath",
        "caRootsData",
        "caIntermediatesPath",
        "caIntermediatesData",
        "subjectEmail",
        "subjectHostname",
    ];
    let pki = sub_object(fields, "pki", &pki)?;
    if sources.len() + usize::from(fulcio) + usize::from(pki) != 1 {
        let what = "exactly one of `keyPath`, `keyPaths`, `keyData`, `keyDatas`, `fulcio` and \
                    `pki` must be given";
        return Err(Fault::new(at, what));
    }
    if log > 1 {
        return Err(Fault::new(at, "at most one kind of `rekorPublicKey…` may be given"));
    }
    let identity = identity(fields)?;
    Ok(match sources.pop() {
        _ if fulcio => Requirement::Unsupported("`sigstoreSigned` with `fulcio`"),
        _ if pki => Requirement::Unsupported("`sigstoreSigned` with `pki`"),
        _ if log > 0 => Requirement::Unsupported("`sigstoreSigned` with `rekorPublicKey…`"),
        keys => Requirement::SigstoreSigned { keys: keys.unwrap_or_default(), identity },
    })
}

fn signed_by(fields: &mut Fields, at: &str) -> Result<Requirement, Fault> {
    let kind = fields.need_text("keyType")?;
    let known = ["GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"];
    if !known.contains(&kind.as_str()) {
        let what = format!("unknown type of key `{kind}`");
        return Err(Fault::new(&fields.place("keyType"), what));
    }
    let sources = paths(fields, "keyPath", "keyPaths")?.len()
        + usize::from(one_data(fields, "keyData")?.is_some());
    if sources != 1 {
        let what = "exactly one of `keyPath`, `keyPaths` and `keyData` must be given";
        return Err(Fault::new(at, what));
    }
    identity(fields)?;
    Ok(Requirement::Unsupported("`signedBy` (GPG)"))
}

/// The values of the two keys that are there, each a list.
fn paths(fields: &mut Fields, one: &str, several: &str) -> Result<Vec<Vec<KeySource>>, Fault> {
    let one = fields.text(one)?.map(|path| vec![path]);
    let several = fields.texts(several)?;
    let as_sources =
        |paths: Vec<String>| paths.into_iter().map(|path| KeySource::Path(path.into())).collect();
    Ok(one.into_iter().chain(several).map(as_sources).collect())
}

fn data(fields: &mut Fields, one: &str, several: &str) -> Result<Vec<Vec<KeySource>>, Fault> {
    let single = one_data(fields, one)?.map(|source| vec![source]);
    let at = fields.place(several);
    let list = fields.texts(several)?.map(|texts| {
        let numbered = texts.iter().enumerate();
        numbered.map(|(number, text)| decode(text, &format!("{at}[{number}]"))).collect()
    });
    Ok(single.into_iter().chain(list.transpose()?).collect())
}

fn one_data(fields: &mut Fields, key: &str) -> Result<Option<KeySource>, Fault> {
    let at = fields.place(key);
    fields.text(key)?.map(|text| decode(&text, &at)).transpose()
}

fn decode(text: &str, at: &str) -> Result<KeySource, Fault> {
    let bytes = STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty());
    bytes.map(KeySource::Data).ok_or_else(|| Fault::new(at, "this is no base64 text"))
}

/// Whether there is such an object; its keys are looked at, their meaning is not.
fn sub_object(fields: &mut Fields, key: &str, known: &[&str]) -> Result<bool, Fault> {
    let at = fields.place(key);
    let Some(node) = fields.take(key) else { return Ok(false) };
    let mut inner = Fields::of(node, &at)?;
    for key in known {
        inner.text(key)?;
    }
    inner.end()?;
    Ok(true)
}
