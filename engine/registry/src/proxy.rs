//! Proxies, from the variables everybody knows, in both cases.
//!
//! As in Go's programs, which users of Podman and Docker compare with: upper case wins, and a
//! loopback address is never asked for through a proxy.

use std::net::IpAddr;

use reqwest::{NoProxy, Proxy, Url};

use crate::{ConfigError, Environment};

/// The proxy for `url`, if the environment names one and does not except the host.
pub(crate) fn of(environment: &Environment, url: &Url) -> Result<Option<Proxy>, ConfigError> {
    if is_loopback(url) {
        return Ok(None);
    }
    let Some((variable, address)) = named(environment, url) else { return Ok(None) };
    let excepted = ["NO_PROXY", "no_proxy"].iter().find_map(|name| environment.var(name)?.to_str());
    let proxy =
        Proxy::all(address).map_err(|_may_hold_a_password| ConfigError::Proxy { variable })?;
    let excepted = excepted.map(|list| for_port(list, url.port_or_known_default()));
    Ok(Some(proxy.no_proxy(excepted.as_deref().and_then(NoProxy::from_string))))
}

/// The variable that names a proxy for `url`, unless `NO_PROXY` excepts the host.
pub(crate) fn variable(environment: &Environment, url: &Url) -> Option<&'static str> {
    if is_loopback(url) { None } else { named(environment, url).map(|(variable, _)| variable) }
}

fn named<'a>(environment: &'a Environment, url: &Url) -> Option<(&'static str, &'a str)> {
    let names: &[&'static str] = if url.scheme() == "https" {
        &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    } else {
        &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    };
    names.iter().find_map(|name| Some((*name, environment.var(name)?.to_str()?)))
}

/// The exceptions that hold for a port, without the port, and `*.domain` as `.domain`: both are what Go's
/// programs understand.
fn for_port(list: &str, port: Option<u16>) -> String {
    let plain = |entry: &str| -> Option<String> {
        let entry = entry.trim();
        let entry = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
        // An IPv6 address has more than one colon, and its port is after a bracket.
        let (host, given) = match entry.rsplit_once(':') {
            Some((host, given)) if !host.contains(':') || host.ends_with(']') => (host, given),
            _ => return Some(entry.to_owned()),
        };
        let holds = given.parse().ok() == port;
        holds.then(|| host.trim_matches(['[', ']']).to_owned())
    };
    list.split(',').filter_map(plain).collect::<Vec<_>>().join(",")
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_found_in_both_cases_and_never_for_loopback() {
        let proxy = "http://u:secret@proxy.site:3128";
        for (variables, url, want) in [
            (vec![("https_proxy", proxy)], "https://a.org/", true),
            (vec![("HTTPS_PROXY", proxy)], "https://a.org/", true),
            (vec![("HTTP_PROXY", proxy)], "https://a.org/", false),
            (vec![("http_proxy", proxy)], "http://a.org/", true),
            (vec![("all_proxy", "socks5h://localhost:1080")], "https://a.org/", true),
            (vec![("HTTPS_PROXY", "")], "https://a.org/", false),
            (vec![("HTTPS_PROXY", proxy)], "https://127.0.0.1:5000/", false),
            (vec![("HTTPS_PROXY", proxy)], "https://[::1]:5000/", false),
            (vec![("HTTPS_PROXY", proxy)], "https://localhost/", false),
            (vec![], "https://a.org/", false),
        ] {
            let environment = Environment::new(variables.clone(), "/nonexistent");
            let found = of(&environment, &Url::parse(url).unwrap()).unwrap();
            assert_eq!(found.is_some(), want, "given {variables:?} and {url}");
        }
    }

    #[test]
    fn exceptions_are_understood_as_by_programs_in_go() {
        for (list, port, want) in [
            ("a.org, .b.org,*.c.org", 443, "a.org,.b.org,.c.org"),
            ("a.org:5000,b.org:443", 443, "b.org"),
            ("10.0.0.0/8,fd00::1,[fd00::2]:443,*", 443, "10.0.0.0/8,fd00::1,fd00::2,*"),
        ] {
            assert_eq!(for_port(list, Some(port)), want, "{list}");
        }
    }

    #[test]
    fn an_invalid_proxy_is_named_by_its_variable_only() {
        let environment = Environment::new([("https_proxy", "http://u:secret@[")], "/nonexistent");
        let error = of(&environment, &Url::parse("https://a.org/").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the variable `https_proxy` holds no valid proxy address");
    }
}
