//! Authentication challenges: the grammar of `WWW-Authenticate`.
//!
//! Specification: RFC 9110, section 11.6.1; the distribution project's token authentication.

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    Basic,
}

/// The challenge to meet, of all in the header's values: a token before a password.
pub(crate) fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let all: Vec<Challenge> = values.flat_map(parse).collect();
    all.iter().find(|it| matches!(it, Challenge::Bearer { .. })).or_else(|| all.first()).cloned()
}

/// The challenges of one header value, of the kinds known here, in order.
fn parse(value: &str) -> Vec<Challenge> {
    let mut rest = Scanner(value);
    let mut challenges = Vec::new();
    while let Some(scheme) = rest.token() {
        let parameters = rest.parameters();
        let get = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if let Some(realm) = get("realm").filter(|_| scheme.eq_ignore_ascii_case("bearer")) {
            challenges.push(Challenge::Bearer {
                realm,
                service: get("service"),
                scope: get("scope"),
            });
        }
    }
    challenges
}

/// What is left of a header value.
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    /// The next token, after any spaces and commas.
    fn token(&mut self) -> Option<&'a str> {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
        let end = self.0.find(|c: char| " \t,=\"".contains(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() {
            // A stray `=` or quote: nothing after it can be trusted.
            self.0 = "";
            return None;
        }
        Some(token)
    }

    /// `name=value` pairs up to the next scheme.
    fn parameters(&mut self) -> Vec<(&'a str, String)> {
        let mut parameters = Vec::new();
        loop {
            let before = self.0;
            let Some(name) = self.token() else { return parameters };
            let after = self.0.trim_start_matches([' ', '\t']);
            let Some(value) = after.strip_prefix('=') else {
                self.0 = before;
                return parameters;
            };
            self.0 = value.trim_start_matches([' ', '\t']);
            parameters.push((name, self.value()));
        }
    }

    /// A quoted string or a token.
    fn value(&mut self) -> String {
        let Some(quoted) = self.0.strip_prefix('"') else {
            let end = self.0.find([' ', '\t', ',']).unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            self.0 = rest;
            return value.to_owned();
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return value;
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                other => value.push(other),
            }
        }
        self.0 = "";
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: own(service), scope: own(scope) }
    }

    #[test]
    fn challenges_are_parsed_with_quotes_and_commas() {
        for (given, want) in [
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a/b:pull,push\"",
                vec![bearer("https://a/t", Some("s"), Some("repository:a/b:pull,push"))],
            ),
            (
                "Basic realm=\"a, b\", Bearer realm=\"https://a/\\\"t\" , service=s",
                vec![Challenge::Basic, bearer("https://a/\"t", Some("s"), None)],
            ),
            ("Negotiate, Basic realm=x", vec![Challenge::Basic]),
            ("Negotiate abc=, Basic", vec![Challenge::Basic]),
            ("Bearer service=s", vec![]),
            ("Bearer realm=\"unfinished", vec![bearer("unfinished", None, None)]),
            ("=\"", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse(given), want, "given {given:?}");
        }
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let values = ["Basic realm=x", "Bearer realm=\"https://t\""];
        assert_eq!(choose(values.into_iter()), Some(bearer("https://t", None, None)));
        assert_eq!(choose(["Digest realm=x"].into_iter()), None);
    }
}
