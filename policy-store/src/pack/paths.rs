//! Which paths a file of a bundle can have. What is not a known name in a known place is refused, so that no path ever
//! leads anywhere else.

use std::path::Path;

use crate::load::{SINGLE_FILES, TREES};

/// Longest path, in bytes: what a plain tar header holds with room.
pub const PATH_BYTES_MAX: usize = 200;
/// Longest name of a file or folder, in bytes: the rest of a plain tar header.
pub const NAME_BYTES_MAX: usize = 100;
/// Most names in a path.
pub const DEPTH_MAX: usize = 8;

/// Why a path is none that a file of a bundle can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path `{path}` {fault}")]
pub struct PathError {
    path: String,
    fault: &'static str,
}

/// Holds a path to the rules.
///
/// # Errors
/// The rule that it breaks.
pub fn check(path: &str) -> Result<(), PathError> {
    match fault(path) {
        None => Ok(()),
        Some(fault) => Err(PathError { path: path.chars().take(PATH_BYTES_MAX).collect(), fault }),
    }
}

/// A path as text.
///
/// # Errors
/// When it is not UTF-8, or breaks a rule.
pub fn text(path: &Path) -> Result<&str, PathError> {
    let Some(text) = path.to_str() else {
        return Err(PathError { path: path.display().to_string(), fault: "is not UTF-8: rename the file" });
    };
    check(text).map(|()| text)
}

fn fault(path: &str) -> Option<&'static str> {
    if SINGLE_FILES.contains(&path) {
        return None;
    }
    if path.len() > PATH_BYTES_MAX {
        return Some("is longer than 200 bytes");
    }
    if path.chars().any(|character| character.is_control() || character == '\\') {
        return Some("has a control character or a backslash");
    }
    let names: Vec<&str> = path.split('/').collect();
    if names.len() > DEPTH_MAX {
        return Some("is deeper than 8 names");
    }
    // This refuses `.` and `..`, and with the empty name absolute paths too.
    if names.iter().any(|name| name.is_empty() || name.starts_with('.')) {
        return Some("is absolute, leads elsewhere, or has a name that begins with a dot");
    }
    if names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
        return Some("has a name longer than 100 bytes");
    }
    let (folder, file) = (names.first().copied(), names.last().copied().unwrap_or(""));
    let extension = file.rsplit_once('.').map(|(_, extension)| extension);
    let known =
        TREES.iter().any(|(tree, of)| folder == Some(*tree) && names.len() > 1 && extension == Some(*of));
    if known { None } else { Some("is no file of a bundle: see the list of files in docs/bundle.md") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_names_in_known_places_are_allowed_and_nothing_else() {
        for good in
            ["bundle.toml", "links.json", "policies/a.cedar", "policies/a/b c/ä.cedar", "tests/t.yaml"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let deep = format!("policies/{}x.cedar", "a/".repeat(7));
        let long = format!("policies/{}.cedar", "a".repeat(200));
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "../x.cedar",
            "policies/../x.cedar",
            "policies//x.cedar",
            "policies/./x.cedar",
            "policies/.x.cedar",
            "policies/x.txt",
            "policies/x",
            "policies",
            "x.cedar",
            "./bundle.toml",
            "bundle.toml/",
            "policies/a\\b.cedar",
            "policies/a\nb.cedar",
            "policies/a\0.cedar",
            "manifest.json",
            "tests/a.cedar",
            deep.as_str(),
            long.as_str(),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_allowed_path_stays_below_its_root(path in "[a-z./\\\\ä]{0,24}(\\.cedar)?") {
            if check(&path).is_ok() {
                let plain = Path::new(&path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
                prop_assert!(plain);
            }
        }
    }
}
