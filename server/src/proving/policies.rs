//! The policies of a bundle as they are written: where each stands, and its text.
//!
//! Counts and names policies as the loader does. What a link makes of a template stands where the bundle's links do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cardea_policy_store::load::Files;
use cardea_policy_store::snapshot::Snapshot;
use cedar_policy::{PolicyId, PolicySet};
use serde_json::Value;
use smol_str::SmolStr;

/// The file that links templates.
const LINKS: &str = "links.json";

/// One policy as it is written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The file, relative to the bundle.
    pub file: PathBuf,
    /// Line in it, from 1; 0 if it is not known.
    pub line: usize,
    /// What it says; none where only a link names it.
    pub body: Option<Body>,
}

/// What a policy or template says.
#[derive(Clone, Debug)]
pub struct Body {
    /// As text.
    pub text: String,
    /// In Cedar's JSON form, which knows its parts.
    pub parts: Value,
}

/// Every policy of a bundle that loads, by its id.
#[must_use]
pub fn written(files: &Files, snapshot: &Snapshot) -> BTreeMap<SmolStr, Written> {
    let mut found = BTreeMap::new();
    let mut number = 0_usize;
    for (path, text, set) in sources(files) {
        let mut own: Vec<_> = set.policies().collect();
        own.sort_by_key(|policy| order(policy.id()));
        for policy in own {
            let id = match policy.annotation("id") {
                Some(id) if !id.is_empty() => SmolStr::new(id),
                _ => SmolStr::from(format!("policy{number}")),
            };
            number += 1;
            let body = policy.to_json().ok().map(|parts| Body { text: policy.to_string(), parts });
            let line = policy.to_cedar().and_then(|own| line_of(text, &own)).unwrap_or(0);
            found.insert(id, Written { file: path.to_owned(), line, body });
        }
    }
    for policy in snapshot.policies() {
        let linked =
            || Written { file: Path::new(LINKS).to_owned(), line: link_line(files, &policy.id), body: None };
        found.entry(policy.id.clone()).or_insert_with(linked);
    }
    found
}

/// Every template of a bundle that loads, by its id.
#[must_use]
pub fn templates(files: &Files) -> BTreeMap<SmolStr, Written> {
    let mut found = BTreeMap::new();
    for (path, text, set) in sources(files) {
        for template in set.templates() {
            let Some(id) = template.annotation("id") else { continue };
            let body = template.to_json().ok().map(|parts| Body { text: template.to_string(), parts });
            let line = line_of(text, &template.to_cedar()).unwrap_or(0);
            found.insert(SmolStr::new(id), Written { file: path.to_owned(), line, body });
        }
    }
    found
}

fn sources(files: &Files) -> impl Iterator<Item = (&Path, &str, PolicySet)> {
    let cedar =
        files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "cedar"));
    cedar.filter_map(|(path, bytes)| {
        let text = std::str::from_utf8(bytes).ok()?;
        Some((path.as_path(), text, text.parse().ok()?))
    })
}

/// Cedar numbers the policies of a text in the order in which they are written.
fn order(id: &PolicyId) -> u64 {
    id.to_string().strip_prefix("policy").and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

fn line_of(text: &str, part: &str) -> Option<usize> {
    let before = text.get(..text.find(part)?)?;
    Some(before.matches('\n').count() + 1)
}

fn link_line(files: &Files, id: &str) -> usize {
    let text = files.get(Path::new(LINKS)).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| line_of(text, &format!("\"{id}\""))).unwrap_or(0)
}
