//! A real registry (`docker-registry`) on the loopback interface.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::command::run;
use crate::http::send;
use crate::image::{Packed, sha256};
use crate::processes::{forget_child, remember_child};

/// How a registry is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// HTTP, open to all.
    Plain,
    /// HTTPS with a certificate of its own authority, `DIRECTORY/ca.crt`.
    Tls,
    /// HTTP, user `researcher` with password `open sesame`.
    Basic,
}

/// A registry that ends with this value. It has a directory of its own.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    host: String,
    directory: PathBuf,
    access: Access,
    keep: Option<tempfile::TempDir>,
}

impl Registry {
    /// An empty registry on plain HTTP.
    pub fn start() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let mut registry = Self::serve(directory.path(), Access::Plain);
        registry.keep = Some(directory);
        registry
    }

    /// The same content served in another way, on another port.
    pub fn restart(mut self, access: Access) -> Self {
        let keep = self.keep.take();
        let directory = self.directory.clone();
        drop(self);
        let mut registry = Self::serve(&directory, access);
        registry.keep = keep;
        registry
    }

    fn serve(directory: &Path, access: Access) -> Self {
        let configuration = directory.join("config.yml");
        let extra = match access {
            Access::Plain => String::new(),
            Access::Tls => {
                make_certificates(directory);
                format!(
                    "  tls: {{certificate: {0}/server.crt, key: {0}/server.key}}\n",
                    directory.display()
                )
            }
            Access::Basic => {
                let line =
                    run(Command::new("htpasswd").args(["-Bbn", "researcher", "open sesame"]));
                fs_err::write(directory.join("htpasswd"), line).expect("a file");
                format!(
                    "auth: {{htpasswd: {{realm: tests, path: {}/htpasswd}}}}\n",
                    directory.display()
                )
            }
        };
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\n\
             storage: {{filesystem: {{rootdirectory: {}/storage}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: 127.0.0.1:0\n{extra}",
            directory.display()
        );
        fs_err::write(&configuration, text).expect("a file");
        let access_log =
            fs_err::File::create(directory.join("access.log")).expect("a file").into_parts().0;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdout(access_log)
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        remember_child(child.id());
        let host = listening_address(&mut child);
        Self { child, host, directory: directory.to_owned(), access, keep: None }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The certificate of the authority that signed the registry's.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// The digest of each blob that was sent whole or in part, as its log says: one for each
    /// request.
    pub fn sent_blobs(&self) -> Vec<String> {
        let log = fs_err::read_to_string(self.directory.join("access.log")).expect("a log");
        log.lines()
            .filter_map(|line| {
                let (path, status) = line.split_once("\"GET ")?.1.split_once(" HTTP/1.1\" 20")?;
                let digest = path.split_once("/blobs/")?.1;
                status.starts_with(['0', '6']).then(|| digest.to_owned())
            })
            .collect()
    }

    /// Uploads an image and names it; returns the reference `HOST/NAME`.
    ///
    /// `name` has a tag; only plain registries take uploads.
    pub fn push(&self, name: &str, image: &Packed) -> String {
        assert_eq!(self.access, Access::Plain, "push before the registry is restarted");
        let (repository, tag) = name.rsplit_once(':').expect("a name with a tag");
        for (digest, bytes) in &image.blobs {
            self.upload(repository, digest, bytes);
        }
        let last = image.manifests.len() - 1;
        for (index, (media_type, bytes)) in image.manifests.iter().enumerate() {
            let reference = if index == last { tag.to_owned() } else { sha256(bytes) };
            let path = format!("/v2/{repository}/manifests/{reference}");
            let answer = send(&self.host, "PUT", &path, media_type, bytes);
            assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        }
        format!("{}/{name}", self.host)
    }

    fn upload(&self, repository: &str, digest: &str, bytes: &[u8]) {
        let start = format!("/v2/{repository}/blobs/uploads/");
        let answer = send(&self.host, "POST", &start, "application/json", b"");
        assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
        let location = &answer.headers["location"];
        let path = location.split_once(&self.host).map_or(location.as_str(), |(_, path)| path);
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}digest={digest}");
        let answer = send(&self.host, "PUT", &path, "application/octet-stream", bytes);
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().expect("the registry is ours");
        self.child.wait().expect("the registry is ours");
        forget_child(self.child.id());
    }
}

/// Reads the registry's log until it says where it listens; the rest is read and dropped.
fn listening_address(child: &mut Child) -> String {
    let log = child.stderr.take().expect("a pipe");
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    let mut seen = String::new();
    let host = lines.by_ref().find_map(|line| {
        let address = line.split_once("listening on ")?.1;
        let end = address.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
        seen.push_str(&line);
        Some(address[..end.unwrap_or(address.len())].to_owned())
    });
    std::thread::spawn(move || lines.for_each(drop));
    host.unwrap_or_else(|| panic!("docker-registry does not start: {seen}"))
}

fn make_certificates(directory: &Path) {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                    -subj /CN=authority -keyout ca.key -out ca.crt \
                    -addext basicConstraints=critical,CA:TRUE
                  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                    -subj /CN=registry -keyout server.key -out server.csr
                  printf 'subjectAltName=IP:127.0.0.1' > extensions
                  openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
                    -days 2 -extfile extensions -out server.crt";
    run(Command::new("sh").arg("-ec").arg(script).current_dir(directory));
}
