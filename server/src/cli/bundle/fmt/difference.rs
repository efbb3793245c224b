//! A short difference between two texts, line by line, for people.
//!
//! Limits: [`SHOWN_MAX`] lines; texts whose differing middles multiply to more than [`CELLS_MAX`] are shown as replaced.

/// Most lines of a difference: enough to see what kind of change it is.
const SHOWN_MAX: usize = 40;
/// Most pairs of lines that are compared: a thousand lines against a thousand, some megabytes.
const CELLS_MAX: usize = 1_000_000;

/// Lines that go with `-`, lines that come with `+`, and one line of those that stay around them.
pub(super) fn shown(before: &str, after: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let marked = marked(&before, &after);
    let changed: Vec<bool> = marked.iter().map(|(mark, _)| *mark != ' ').collect();
    let near = |at: usize| {
        let around = at.saturating_sub(1)..(at + 2).min(changed.len());
        changed.get(around).is_some_and(|around| around.contains(&true))
    };
    let mut text = String::new();
    let mut shown = 0;
    let mut gap = false;
    for (at, (mark, line)) in marked.iter().enumerate() {
        if !near(at) {
            gap = true;
            continue;
        }
        if shown == SHOWN_MAX {
            text.push_str("    …\n");
            break;
        }
        if gap && shown > 0 {
            text.push_str("    …\n");
        }
        gap = false;
        shown += 1;
        text.push_str(format!("  {mark} {line}").trim_end());
        text.push('\n');
    }
    if shown == 0 {
        text.push_str("    only the ends of lines differ\n");
    }
    text
}

fn marked<'t>(before: &[&'t str], after: &[&'t str]) -> Vec<(char, &'t str)> {
    let head = before.iter().zip(after).take_while(|(old, new)| old == new).count();
    let (same, before) = before.split_at(head);
    let after = after.split_at(head).1;
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(old, new)| old == new).count();
    let (before, end) = before.split_at(before.len() - tail);
    let after = after.split_at(after.len() - tail).0;
    let mut lines: Vec<(char, &str)> = same.iter().map(|line| (' ', *line)).collect();
    if before.len().saturating_mul(after.len()) > CELLS_MAX {
        lines.extend(before.iter().map(|line| ('-', *line)));
        lines.extend(after.iter().map(|line| ('+', *line)));
    } else {
        lines.extend(aligned(before, after));
    }
    lines.extend(end.iter().map(|line| (' ', *line)));
    lines
}

/// The alignment that keeps the most lines.
fn aligned<'t>(before: &[&'t str], after: &[&'t str]) -> Vec<(char, &'t str)> {
    // kept[i][j]: most lines that the texts from line i and line j on have in common.
    let mut kept = vec![vec![0_u32; after.len() + 1]; before.len() + 1];
    let at =
        |kept: &[Vec<u32>], i: usize, j: usize| kept.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
    for (i, old) in before.iter().enumerate().rev() {
        for (j, new) in after.iter().enumerate().rev() {
            let best = if old == new {
                at(&kept, i + 1, j + 1) + 1
            } else {
                at(&kept, i + 1, j).max(at(&kept, i, j + 1))
            };
            if let Some(cell) = kept.get_mut(i).and_then(|row| row.get_mut(j)) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    loop {
        match (before.get(i), after.get(j)) {
            (Some(old), Some(new)) if old == new => {
                lines.push((' ', *old));
                (i, j) = (i + 1, j + 1);
            }
            (Some(old), new) if new.is_none() || at(&kept, i + 1, j) >= at(&kept, i, j + 1) => {
                lines.push(('-', *old));
                i += 1;
            }
            (_, Some(new)) => {
                lines.push(('+', *new));
                j += 1;
            }
            (_, None) => return lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_goes_and_comes_is_shown_with_what_stays_around_it() {
        let text = shown("a\nb\nc\nd\ne\n", "a\nb\nC\nd\ne\n");
        assert_eq!(text, "    b\n  - c\n  + C\n    d\n");
        assert!(shown("a\r\n", "a\n").contains("ends of lines"));
    }

    proptest! {
        #[test]
        fn the_marked_lines_are_both_texts(before in "[abc\n]{0,30}", after in "[abc\n]{0,30}") {
            let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
            let marked = marked(&old, &new);
            let of = |left: char| marked.iter().filter(|(mark, _)| *mark != left).map(|(_, line)| *line).collect::<Vec<_>>();
            prop_assert_eq!(of('+'), old);
            prop_assert_eq!(of('-'), new);
        }
    }
}
