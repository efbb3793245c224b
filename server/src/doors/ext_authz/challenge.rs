//! `WWW-Authenticate` challenges: RFC 6750 form, RFC 9470 for a stronger or fresher login.
//!
//! Owns which error word stands for which kind of step-up and how several requirements become one challenge. Limits:
//! 1 KiB of description, 16 acr values. Never lets text of a policy leave its quotes: what RFC 6750 does not allow in
//! a quoted value is replaced, and an acr value that cannot be written is left out.

use std::fmt::Write as _;

use smol_str::SmolStr;

const DESCRIPTION_BYTES_MAX: usize = 1024;
const ACR_VALUES_MAX: usize = 16;

/// What must happen before the same request can be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUpNeed {
    /// Name in the bundle.
    pub name: SmolStr,
    /// What kind of thing must happen.
    pub kind: StepUpKind,
    /// The review that it opens, if it asks for an approval.
    pub review_id: Option<SmolStr>,
}

/// What kind of thing must happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepUpKind {
    /// A fresh or stronger login.
    Authentication {
        /// Acceptable authentication context classes, best first. Empty: any.
        acr_values: Vec<SmolStr>,
        /// Oldest acceptable login, in seconds. `None`: any age.
        max_age_s: Option<u64>,
    },
    /// Approval by a reviewer.
    Approval,
    /// Fresh proof of the workload.
    Attestation,
}

impl StepUpKind {
    /// The kind as the caller reads it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Authentication { .. } => "authentication",
            Self::Approval => "approval",
            Self::Attestation => "attestation",
        }
    }
}

/// The challenge to somebody who did not say who they are; RFC 6750 asks for no error word then.
pub(super) const IDENTIFY: &str = "Bearer";

/// One challenge for all needs. What the caller can do itself comes first: log in, prove, then wait for approval.
pub(super) fn step_up(needs: &[StepUpNeed], message: &str) -> String {
    let has = |kind: fn(&StepUpKind) -> bool| needs.iter().any(|need| kind(&need.kind));
    let login = has(|kind| matches!(kind, StepUpKind::Authentication { .. })) || needs.is_empty();
    let error = if login {
        "insufficient_user_authentication"
    } else if has(|kind| *kind == StepUpKind::Attestation) {
        "attestation_required"
    } else {
        "approval_required"
    };
    let mut header = format!("Bearer error=\"{error}\"");
    let description = quotable(message);
    if !description.is_empty() {
        let _ = write!(header, ", error_description=\"{description}\"");
    }
    let acr_values = merged_acr(needs);
    if !acr_values.is_empty() {
        let _ = write!(header, ", acr_values=\"{}\"", acr_values.join(" "));
    }
    if let Some(max_age_s) = smallest_age(needs) {
        let _ = write!(header, ", max_age=\"{max_age_s}\"");
    }
    header
}

/// Classes that satisfy every need, in the first one's order of preference. If none satisfies all, every class in
/// order: the caller then meets the needs one after the other.
fn merged_acr(needs: &[StepUpNeed]) -> Vec<&str> {
    let lists: Vec<Vec<&str>> = needs
        .iter()
        .filter_map(|need| match &need.kind {
            StepUpKind::Authentication { acr_values, .. } => Some(acr_values),
            StepUpKind::Approval | StepUpKind::Attestation => None,
        })
        .map(|values| values.iter().map(SmolStr::as_str).filter(|value| is_acr(value)).collect::<Vec<_>>())
        .filter(|values| !values.is_empty())
        .collect();
    let mut common: Vec<&str> = Vec::new();
    let mut all: Vec<&str> = Vec::new();
    for value in lists.iter().flatten() {
        if !all.contains(value) {
            all.push(value);
            if lists.iter().all(|list| list.contains(value)) {
                common.push(value);
            }
        }
    }
    let mut merged = if common.is_empty() { all } else { common };
    merged.truncate(ACR_VALUES_MAX);
    merged
}

fn smallest_age(needs: &[StepUpNeed]) -> Option<u64> {
    needs
        .iter()
        .filter_map(|need| match need.kind {
            StepUpKind::Authentication { max_age_s, .. } => max_age_s,
            StepUpKind::Approval | StepUpKind::Attestation => None,
        })
        .min()
}

/// RFC 6749 NQCHAR: no space, no quote, no backslash, visible ASCII.
fn is_acr(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte))
}

/// RFC 6750 `error_description`: visible ASCII and space, without `"` and `\`.
fn quotable(text: &str) -> String {
    let safe = text.chars().take(DESCRIPTION_BYTES_MAX).map(|letter| match letter {
        '"' => '\'',
        '\\' => '/',
        letter if letter.is_ascii_graphic() => letter,
        letter if letter.is_whitespace() || letter.is_control() => ' ',
        _ => '?',
    });
    safe.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn login(acr_values: &[&str], max_age_s: Option<u64>) -> StepUpNeed {
        let acr_values = acr_values.iter().map(SmolStr::new).collect();
        StepUpNeed {
            name: "mfa".into(),
            kind: StepUpKind::Authentication { acr_values, max_age_s },
            review_id: None,
        }
    }

    fn need(kind: StepUpKind) -> StepUpNeed {
        StepUpNeed { name: "n".into(), kind, review_id: None }
    }

    #[test]
    fn a_login_is_asked_for_as_rfc_9470_says() {
        assert_eq!(
            step_up(&[login(&["urn:loa:3", "urn:loa:2"], Some(300))], "A stronger login is needed"),
            "Bearer error=\"insufficient_user_authentication\", error_description=\"A stronger login is needed\", \
             acr_values=\"urn:loa:3 urn:loa:2\", max_age=\"300\""
        );
        assert_eq!(step_up(&[login(&[], None)], ""), "Bearer error=\"insufficient_user_authentication\"");
        assert_eq!(
            step_up(&[login(&[], Some(0))], ""),
            "Bearer error=\"insufficient_user_authentication\", max_age=\"0\""
        );
    }

    #[test]
    fn several_logins_become_one_that_satisfies_all() {
        let needs = [login(&["c", "b", "a"], Some(600)), login(&[], Some(60)), login(&["a", "b"], None)];
        assert!(step_up(&needs, "").ends_with("acr_values=\"b a\", max_age=\"60\""));
        let apart = [login(&["x", "y"], None), login(&["z", "x2"], None)];
        assert!(step_up(&apart, "").ends_with("acr_values=\"x y z x2\""));
    }

    #[test]
    fn other_kinds_have_their_own_words_and_login_comes_first() {
        let (approval, attestation) = (need(StepUpKind::Approval), need(StepUpKind::Attestation));
        assert_eq!(step_up(std::slice::from_ref(&approval), ""), "Bearer error=\"approval_required\"");
        assert_eq!(
            step_up(&[approval.clone(), attestation.clone()], ""),
            "Bearer error=\"attestation_required\""
        );
        let all = [approval, attestation, login(&["a"], None)];
        assert_eq!(step_up(&all, ""), "Bearer error=\"insufficient_user_authentication\", acr_values=\"a\"");
    }

    #[test]
    fn text_cannot_leave_its_quotes_or_its_line() {
        let evil = "x\", acr_values=\"none\"\r\nSet-Cookie: a=b\\ é";
        let header = step_up(&[login(&["a b", "c\"d", "e\r\nf", "ok", "é"], None)], evil);
        assert_eq!(
            header,
            "Bearer error=\"insufficient_user_authentication\", \
             error_description=\"x', acr_values='none'  Set-Cookie: a=b/ ?\", acr_values=\"ok\""
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_a_clean_header_of_four_parameters_at_most(message: String, acr: Vec<String>) {
            let acr: Vec<&str> = acr.iter().map(String::as_str).collect();
            let header = step_up(&[login(&acr, Some(1))], &message);
            prop_assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'\\'));
            let quotes = header.matches('"').count();
            prop_assert!(quotes <= 8 && quotes.is_multiple_of(2));
        }
    }
}
