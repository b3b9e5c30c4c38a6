//! From what the HTTP library and a server say to one [`RegistryError`].
//!
//! The library wraps a cause in layers that say nothing to a user ("error sending request",
//! "client error (Connect)"); only the innermost is kept, and no address with its query.

use std::error::Error;
use std::io::{self, Read as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use crate::RegistryError;
use crate::error::Cause;
use crate::transport::Answer;

/// Most bytes of an error's body that are looked at.
const BODY_MAX: u64 = 64 << 10;
/// Most characters of what a server says that are shown.
const DETAIL_MAX: usize = 300;

/// The error for a request to `host` that got no answer. `limit` is the time limit that was set.
pub(crate) fn of_send(error: &reqwest::Error, host: &str, limit: Duration) -> RegistryError {
    let host = host.to_owned();
    let (innermost, tls) = causes(error);
    let source = Cause(innermost);
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => return RegistryError::PlainHttp { host },
        Some(rustls::Error::InvalidCertificate(problem)) => {
            let untrusted = matches!(problem, rustls::CertificateError::UnknownIssuer);
            return RegistryError::Tls {
                host,
                untrusted,
                source: Cause(certificate_text(problem)),
            };
        }
        Some(_) => return RegistryError::Tls { host, untrusted: false, source },
        None => {}
    }
    if error.is_timeout() {
        return RegistryError::Timeout { host, limit };
    }
    if error.is_builder() {
        return RegistryError::Setup { host, source };
    }
    if error.is_connect() {
        if is_lookup(error) {
            return RegistryError::HostUnknown { host, proxy: None, source };
        }
        if !is_broken(error) {
            return RegistryError::Connect { host, proxy: None, source };
        }
    }
    RegistryError::Interrupted { host, source }
}

/// The text of the innermost cause, and the TLS library's error if there is one.
fn causes<'a>(error: &'a reqwest::Error) -> (String, Option<&'a rustls::Error>) {
    let mut tls = None;
    let mut innermost: &'a (dyn Error + 'static) = error;
    while let Some(next) = inner(innermost) {
        innermost = next;
        tls = innermost.downcast_ref().or(tls);
    }
    (innermost.to_string(), tls)
}

/// The text of the innermost cause of a body that could not be read.
pub(crate) fn innermost(error: &io::Error) -> String {
    let mut innermost: &(dyn Error + 'static) = error;
    while let Some(next) = inner(innermost) {
        innermost = next;
    }
    innermost.to_string()
}

/// The next cause; an [`io::Error`] hides the one it carries from `source`.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(carried) => Some(carried),
        None => error.source(),
    }
}

/// Whether the resolver failed. The library's type for that is private; its text is not.
fn is_lookup(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.to_string() == "dns error" {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether a connection that existed broke, for instance in the middle of a TLS handshake.
fn is_broken(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            )
        ) {
            return true;
        }
        cause = inner(error);
    }
    false
}

fn certificate_text(problem: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Problem;
    match problem {
        Problem::UnknownIssuer => "the issuer of the server's certificate is not trusted".into(),
        Problem::Expired | Problem::ExpiredContext { .. } => {
            "the server's certificate has expired".into()
        }
        Problem::NotValidYet | Problem::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; is the clock right?".into()
        }
        Problem::NotValidForName | Problem::NotValidForNameContext { .. } => {
            "the server's certificate is for another name".into()
        }
        other => other.to_string(),
    }
}

/// The error for an answer that is no success; reads a bounded part of its body.
pub(crate) fn of_answer(answer: Answer, object: &str) -> RegistryError {
    let (host, object) = (answer.host, object.to_owned());
    let (status, foreign) = (answer.response.status(), answer.foreign);
    let retry_after = retry_after(answer.response.headers());
    let detail = detail(answer.response);
    match status {
        StatusCode::UNAUTHORIZED if !foreign => {
            RegistryError::Unauthorized { host, object, origin: None }
        }
        // A storage host that the registry redirected to knows no users and no names: nobody can
        // log in there.
        StatusCode::FORBIDDEN if !foreign => RegistryError::Forbidden { host, object, detail },
        StatusCode::NOT_FOUND if !foreign => RegistryError::NotFound { host, object, detail },
        StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited { host, retry_after, detail },
        status => RegistryError::Status { host, status: status.to_string(), object, detail },
    }
}

/// What the server says went wrong, on one line: `CODE: message` by the API's form.
fn detail(response: reqwest::blocking::Response) -> String {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        #[serde(default, alias = "details")]
        message: String,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    if is_page(response.headers()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    if let Err(error) = response.take(BODY_MAX).read_to_end(&mut bytes) {
        log::debug!("body of an error is incomplete: {error}");
    }
    let text = match serde_json::from_slice::<Body>(&bytes) {
        Ok(body) => match body.errors.first() {
            Some(first) if first.message.is_empty() => first.code.clone(),
            Some(first) if first.code.is_empty() => first.message.clone(),
            Some(first) => format!("{}: {}", first.code, first.message),
            None => body.message,
        },
        Err(_not_json) => String::from_utf8_lossy(&bytes).lines().next().unwrap_or("").to_owned(),
    };
    text.chars().filter(|c| !c.is_control()).take(DETAIL_MAX).collect::<String>().trim().to_owned()
}

/// Whether the body is a web page, which no registry sends.
pub(crate) fn is_page(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|given| given.starts_with("text/html"))
}

/// The `Content-Type`, if it is text.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()
}

/// How long the server asks to wait: seconds, or a date, which is compared with the server's own
/// clock where it tells the time, else with ours.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wanted = seconds_of_date(text)?;
    let date = headers.get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(seconds_of_date).or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some(seconds_of_date("Thu, 01 Jan 1970 00:00:00 GMT")? + now.as_secs())
    })?;
    Some(Duration::from_secs(wanted.saturating_sub(now)))
}

/// Seconds since some fixed day of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn seconds_of_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = u64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()?;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1900..10_000).contains(year))?;
    let mut clock = words.next()?.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Years begin in March here, so that the leap day is the last of its year.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_servers_clock() {
        let date = "Sat, 28 Feb 2032 23:59:50 GMT";
        for (given, want) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 29 Feb 2032 00:00:00 GMT", Some(10)),
            ("Mon, 01 Mar 2032 00:00:00 GMT", Some(86410)),
            ("Sat, 28 Feb 2032 23:59:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, given.parse().unwrap());
            headers.insert(reqwest::header::DATE, date.parse().unwrap());
            assert_eq!(retry_after(&headers), want.map(Duration::from_secs), "given {given}");
        }
        // Without the server's clock it is ours: long ago, and far in the future.
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, date.replace("2032", "2001").parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::ZERO));
        headers.insert(RETRY_AFTER, date.replace("2032", "9999").parse().unwrap());
        assert!(retry_after(&headers) > Some(Duration::from_secs(7_000 * 365 * 86_400)));
    }
}
