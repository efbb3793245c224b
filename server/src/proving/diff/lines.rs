//! The difference of two texts by lines, small ones: a policy, a schema.
//!
//! Limits: [`LINES_MAX`] lines a side; longer texts are said to differ and not compared.

/// Most lines of a side; the comparison takes the product of both as memory.
pub const LINES_MAX: usize = 2000;
/// Unchanged lines that are shown around a change.
const CONTEXT: usize = 1;

/// The changed lines, `-` old and `+` new, with a line around them; `…` stands for what is left out.
#[must_use]
pub fn diff(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    if old.len() > LINES_MAX || new.len() > LINES_MAX {
        return vec![format!("{} lines before, {} after: too long to compare here", old.len(), new.len())];
    }
    let all = script(&old, &new);
    let changed = |at: usize| all.get(at).is_some_and(|(sign, _)| *sign != ' ');
    let mut shown = Vec::new();
    let mut skipped = false;
    for (at, (sign, line)) in all.iter().enumerate() {
        let near = (at.saturating_sub(CONTEXT)..=at + CONTEXT).any(changed);
        if near {
            if skipped && !shown.is_empty() {
                shown.push("  …".to_owned());
            }
            shown.push(format!("{sign} {line}").trim_end().to_owned());
        }
        skipped = !near;
    }
    shown
}

/// Every line with `-`, `+` or a space, by the longest common subsequence.
fn script<'l>(old: &[&'l str], new: &[&'l str]) -> Vec<(char, &'l str)> {
    let width = new.len() + 1;
    let mut common = vec![0_u16; (old.len() + 1) * width];
    let read = |common: &[u16], i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
    for (i, line) in old.iter().enumerate().rev() {
        for (j, other) in new.iter().enumerate().rev() {
            let longest = if line == other {
                read(&common, i + 1, j + 1) + 1
            } else {
                read(&common, i + 1, j).max(read(&common, i, j + 1))
            };
            if let Some(cell) = common.get_mut(i * width + j) {
                *cell = longest;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut script = Vec::with_capacity(old.len() + new.len());
    loop {
        match (old.get(i), new.get(j)) {
            (Some(line), Some(other)) if line == other => {
                script.push((' ', *line));
                (i, j) = (i + 1, j + 1);
            }
            (Some(line), other) if other.is_none() || read(&common, i + 1, j) >= read(&common, i, j + 1) => {
                script.push(('-', *line));
                i += 1;
            }
            (_, Some(other)) => {
                script.push(('+', *other));
                j += 1;
            }
            _ => return script,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changed_lines_are_shown_with_their_neighbours() {
        assert_eq!(
            diff("a\nb\nc\nd\ne\nf", "a\nB\nc\nd\ne\nf\ng"),
            ["  a", "- b", "+ B", "  c", "  …", "  f", "+ g"]
        );
        assert_eq!(diff("a\nb", "a\nb"), Vec::<String>::new());
    }

    proptest! {
        /// Old lines are those with `-` or a space, new ones those with `+` or a space, in their order.
        #[test]
        fn a_script_holds_both_texts(old in prop::collection::vec("[ab]", 0..12), new in prop::collection::vec("[ab]", 0..12)) {
            let (old, new): (Vec<&str>, Vec<&str>) =
                (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
            let script = script(&old, &new);
            let side = |without: char| script.iter().filter(|(sign, _)| *sign != without).map(|(_, line)| *line).collect::<Vec<_>>();
            prop_assert_eq!(side('+'), old);
            prop_assert_eq!(side('-'), new);
        }
    }
}
