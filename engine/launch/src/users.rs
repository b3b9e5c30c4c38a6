//! The user in the image's own `passwd` and `group` files.

/// One line of `passwd(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Full name and such.
    pub gecos: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// The image's `passwd` with the user in it: before the first line with the same name or id, so
/// that it is the one found, else at the end. None when the image's own line says the same.
pub fn merge_passwd(image: &str, account: &Account) -> Option<String> {
    let line = format!(
        "{}:x:{}:{}:{}:{}:{}",
        field(&account.name),
        account.uid,
        account.gid,
        field(&account.gecos),
        field(&account.home),
        field(&account.shell)
    );
    merge(image, &line, &account.name, account.uid)
}

/// The image's `group` with the user's groups (name and id) in it, as [`merge_passwd`] does.
/// None when nothing is missing.
pub fn merge_group(image: &str, groups: &[(String, u32)]) -> Option<String> {
    let mut merged: Option<String> = None;
    for (name, gid) in groups {
        let line = format!("{}:x:{gid}:", field(name));
        let text = merged.as_deref().unwrap_or(image);
        if let Some(next) = merge(text, &line, name, *gid) {
            merged = Some(next);
        }
    }
    merged
}

/// Puts `line` before the first line of that name or id; nothing when that one has both.
fn merge(image: &str, line: &str, name: &str, id: u32) -> Option<String> {
    let same = |existing: &str| {
        let mut fields = existing.split(':');
        let same_name = fields.next() == Some(name);
        let same_id = fields.nth(1).and_then(|field| field.parse().ok()) == Some(id);
        (same_name, same_id)
    };
    let first = lines(image).position(|existing| {
        let (same_name, same_id) = same(existing);
        same_name || same_id
    });
    if first.and_then(|index| lines(image).nth(index)).map(same) == Some((true, true)) {
        return None;
    }
    let at = first.unwrap_or(usize::MAX);
    let mut merged = String::with_capacity(image.len() + line.len() + 1);
    for (index, existing) in lines(image).enumerate() {
        if index == at {
            merged.extend([line, "\n"]);
        }
        merged.extend([existing, "\n"]);
    }
    if first.is_none() {
        merged.extend([line, "\n"]);
    }
    Some(merged)
}

/// Lines as the C library has them: a carriage return is a byte like others, so `user\r` is not
/// the name `user`.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_terminator('\n')
}

/// A field cannot hold what separates fields and lines.
fn field(text: &str) -> String {
    text.replace([':', '\n', '\r'], " ")
}
