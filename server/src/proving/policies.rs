//! The policies of a bundle as they are written: where each stands, and its text.
//!
//! Counts and names policies as the loader does. What a link makes of a template stands where the bundle's links do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cardea_policy_store::load::Files;
use cardea_policy_store::snapshot::Snapshot;
use cedar_policy::{Policy, PolicySet};
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
    /// The policy; none where only a link names it.
    pub policy: Option<Policy>,
}

/// Every policy of a bundle that loads, by its id.
#[must_use]
pub fn written(files: &Files, snapshot: &Snapshot) -> BTreeMap<SmolStr, Written> {
    let mut found = BTreeMap::new();
    let mut number = 0_usize;
    let cedar =
        files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "cedar"));
    for (path, bytes) in cedar {
        let Some((text, set)) = parsed(bytes) else { continue };
        let mut own: Vec<_> = set.policies().collect();
        own.sort_by_key(|policy| order(policy));
        for policy in own {
            let id = match policy.annotation("id") {
                Some(id) if !id.is_empty() => SmolStr::new(id),
                _ => SmolStr::from(format!("policy{number}")),
            };
            number += 1;
            let line = policy.to_cedar().and_then(|own| line_of(text, &own)).unwrap_or(0);
            found.insert(id, Written { file: path.clone(), line, policy: Some(policy.clone()) });
        }
    }
    for policy in snapshot.policies() {
        let linked = || Written {
            file: Path::new(LINKS).to_owned(),
            line: link_line(files, &policy.id),
            policy: None,
        };
        found.entry(policy.id.clone()).or_insert_with(linked);
    }
    found
}

fn parsed(bytes: &[u8]) -> Option<(&str, PolicySet)> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some((text, text.parse().ok()?))
}

/// Cedar numbers the policies of a text in the order in which they are written.
fn order(policy: &Policy) -> u64 {
    policy.id().to_string().strip_prefix("policy").and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

fn line_of(text: &str, part: &str) -> Option<usize> {
    let before = text.get(..text.find(part)?)?;
    Some(before.matches('\n').count() + 1)
}

fn link_line(files: &Files, id: &str) -> usize {
    let text = files.get(Path::new(LINKS)).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| line_of(text, &format!("\"{id}\""))).unwrap_or(0)
}
