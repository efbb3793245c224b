//! The snapshot file of a matrix: one line for each cell, so that a review sees what a change does as changed lines.
//!
//! ```text
//! deny     unknown  Agent::"a"  read    Table::"t"  task-missing
//! ```
//!
//! Columns are separated by two spaces or more; names keep their quotes, so that no name can look like a separator.

use std::collections::BTreeMap;

use super::{Answer, Filters, Key};

/// The first line of every snapshot.
const HEAD: &str = "# cardea bundle matrix, format 1: verdict, situation, principal, action, resource, why";
/// Columns are padded to a multiple of this, so that one longer name rarely moves all lines.
const TAB: usize = 8;

/// The text of a snapshot.
#[must_use]
pub fn text(cells: &BTreeMap<Key, Answer>, filters: &Filters) -> String {
    let mut widths = [0_usize; 4];
    let columns = |key: &Key| {
        [key.situation.clone(), key.principal.to_string(), key.action.to_string(), key.resource.to_string()]
    };
    for key in cells.keys() {
        for (width, column) in widths.iter_mut().zip(columns(key)) {
            *width = (*width).max(column.chars().count().div_ceil(TAB) * TAB);
        }
    }
    let mut text = format!("{HEAD}\n");
    let filtered = filters_line(filters);
    if !filtered.is_empty() {
        text.push_str(&format!("# {filtered}\n"));
    }
    for (key, answer) in cells {
        let mut line = format!("{:8}", answer.verdict);
        for (width, column) in widths.iter().zip(columns(key)) {
            line.push_str(&format!(" {column:width$} "));
        }
        line.push_str(&format!(" {}", answer.why()));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The filters as the command line gives them; empty for none.
fn filters_line(filters: &Filters) -> String {
    let named =
        [("principal", &filters.principal), ("action", &filters.action), ("resource", &filters.resource)];
    let given = named.into_iter().filter(|(_, text)| !text.is_empty());
    given.map(|(name, text)| format!("--{name} {}", text.escape_debug())).collect::<Vec<_>>().join(" ")
}

/// One line that differs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// Situation, principal, action and resource.
    pub cell: String,
    /// Verdict and why in the snapshot; none for a new cell.
    pub old: Option<String>,
    /// Verdict and why now; none for a cell that is gone.
    pub new: Option<String>,
}

/// Why a text is not the snapshot of this matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotComparable {
    /// Another file, or another format.
    #[error("the file does not begin as a snapshot does; write it anew with --write")]
    NotASnapshot,
    /// A line is not one of a cell.
    #[error("line {0} is not a line of a snapshot; write it anew with --write")]
    Line(usize),
    /// It was drawn with other filters.
    #[error("the snapshot was written with `{0}`; give the same filters, or write it anew with --write")]
    OtherFilters(String),
}

/// Every cell that differs between a snapshot and what the bundle says now.
///
/// # Errors
/// When the text is not a snapshot of these filters.
pub fn changes(
    snapshot: &str,
    cells: &BTreeMap<Key, Answer>,
    filters: &Filters,
) -> Result<Vec<Changed>, NotComparable> {
    let old = read(snapshot, filters)?;
    let new = read(&text(cells, filters), filters)?;
    let mut changed = Vec::new();
    for (cell, was) in &old {
        let is = new.get(cell);
        if is != Some(was) {
            changed.push(Changed { cell: cell.clone(), old: Some(was.clone()), new: is.cloned() });
        }
    }
    let added = new.into_iter().filter(|(cell, _)| !old.contains_key(cell));
    changed.extend(added.map(|(cell, is)| Changed { cell, old: None, new: Some(is) }));
    changed.sort_by(|a, b| a.cell.cmp(&b.cell));
    Ok(changed)
}

/// Verdict and why of each cell.
fn read(text: &str, filters: &Filters) -> Result<BTreeMap<String, String>, NotComparable> {
    let mut lines = text.lines().enumerate();
    if lines.next().map(|(_, line)| line.trim_end()) != Some(HEAD) {
        return Err(NotComparable::NotASnapshot);
    }
    let mut cells = BTreeMap::new();
    let mut filtered = String::new();
    for (number, line) in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            filtered = comment.trim_end().to_owned();
        } else if !line.trim().is_empty() {
            let (cell, answer) = cell(line).ok_or(NotComparable::Line(number + 1))?;
            cells.insert(cell, answer);
        }
    }
    if filtered == filters_line(filters) { Ok(cells) } else { Err(NotComparable::OtherFilters(filtered)) }
}

/// The cell of a line, in words, and its answer.
fn cell(line: &str) -> Option<(String, String)> {
    let (verdict, rest) = column(line)?;
    let (situation, rest) = column(rest)?;
    let (principal, rest) = column(rest)?;
    let (action, rest) = column(rest)?;
    let (resource, why) = column(rest)?;
    Some((format!("{situation}: {principal} {action} {resource}"), format!("{verdict} {}", why.trim())))
}

/// The first column and the rest: it ends at a space outside quotes.
fn column(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let (mut quoted, mut escaped) = (false, false);
    let end = line.char_indices().find(|(_, c)| {
        let ends = *c == ' ' && !quoted;
        quoted ^= *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    let at = end.map_or(line.len(), |(at, _)| at);
    line.split_at_checked(at).filter(|(first, _)| !first.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proving::words::{ActionNamed, Named};

    fn key(id: &str, action: &str) -> Key {
        let named = |type_name: &str, id: &str| Named { type_name: type_name.to_owned(), id: id.to_owned() };
        Key {
            situation: "calm".to_owned(),
            principal: named("User", id),
            action: ActionNamed(named("Action", action)),
            resource: named("Note", id),
        }
    }

    fn answer(verdict: &'static str, policy: &str) -> Answer {
        Answer {
            verdict,
            policies: vec![policy.to_owned()],
            reasons: Vec::new(),
            requirements: Vec::new(),
            obligations: Vec::new(),
        }
    }

    #[test]
    fn a_changed_a_new_and_a_gone_cell_are_told() {
        let none = Filters::default();
        let old = BTreeMap::from([
            (key("a", "read"), answer("deny", "p")),
            (key("b", "read"), answer("allow", "q")),
        ]);
        let new = BTreeMap::from([
            (key("a", "read"), answer("allow", "q")),
            (key("c", "read"), answer("deny", "p")),
        ]);
        let found = changes(&text(&old, &none), &new, &none).unwrap();
        let told: Vec<_> =
            found.iter().map(|one| (one.cell.as_str(), one.old.as_deref(), one.new.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("calm: User::\"a\" read Note::\"a\"", Some("deny p"), Some("allow q")),
                ("calm: User::\"b\" read Note::\"b\"", Some("allow q"), None),
                ("calm: User::\"c\" read Note::\"c\"", None, Some("deny p")),
            ]
        );
        assert_eq!(changes("x\n", &new, &none), Err(NotComparable::NotASnapshot));
        assert_eq!(changes(&format!("{HEAD}\nallow\n"), &new, &none), Err(NotComparable::Line(2)));
        let filtered = Filters { action: "read".to_owned(), ..Filters::default() };
        assert_eq!(
            changes(&text(&new, &filtered), &new, &none),
            Err(NotComparable::OtherFilters("--action read".to_owned()))
        );
    }

    proptest! {
        /// Whatever names look like, a snapshot says of each cell what the matrix says.
        #[test]
        fn a_snapshot_reads_back(
            cells in prop::collection::btree_map((".{0,12}", ".{1,12}"), (0..3usize, ".{0,12}"), 0..12)
        ) {
            let cells: BTreeMap<Key, Answer> = cells
                .into_iter()
                .map(|((id, action), (verdict, policy))| {
                    (key(&id, &action), answer(["allow", "step_up", "deny"][verdict], &policy))
                })
                .collect();
            let none = Filters::default();
            prop_assert_eq!(changes(&text(&cells, &none), &cells, &none), Ok(Vec::new()));
            prop_assert_eq!(read(&text(&cells, &none), &none).map(|read| read.len()), Ok(cells.len()));
        }
    }
}
