//! How deviations are judged: thresholds and responses, from the bundle or a file.

use serde::Deserialize;
use smol_str::SmolStr;

use super::deviation::{Assessment, Response};
use super::fingerprint::host;

/// Most domains that can be one's own.
pub const OWN_DOMAINS_MAX: usize = 64;

/// See the module; the defaults come from the measurements in `docs/monitoring.md`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Approved runs from which a baseline is mature; what deviates from less goes to review.
    pub mature_runs: u32,
    /// Age up to which a token is fresh, in seconds.
    pub fresh_token_s: u64,
    /// Share of an action's targets, of 1, that were seen in one approved run only, above which its targets count as
    /// open: then one that the identity used for this action in another task is expected too.
    pub open_share: f64,
    /// Tasks of the identity that must have used an external reference before a task without mature baseline may hand something to it.
    pub reference_tasks: u32,
    /// Approved runs that must have used an action for it to count as in scope although the task was not declared for it.
    pub scope_runs: u32,
    /// Domains whose addresses are not external: they count as known, under a mature baseline if the identity used them in
    /// another task.
    pub own_domains: Vec<SmolStr>,
    /// Whether a new action that only reads is held against the identity. Right for machines, wrong for agents.
    pub count_reads: bool,
    /// Score from which a burst counts; absent: bursts are not looked for.
    pub burst_score: Option<f32>,
    /// What is answered.
    pub response: Responses,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            mature_runs: 8,
            fresh_token_s: 60,
            open_share: 0.05,
            reference_tasks: 2,
            scope_runs: 4,
            own_domains: Vec::new(),
            count_reads: false,
            burst_score: None,
            response: Responses::default(),
        }
    }
}

/// What is answered to each assessment, if policy leaves it to the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Responses {
    /// To abuse, judged by a mature baseline.
    pub abuse: Response,
    /// To a change of workflow, judged by a mature baseline.
    pub workflow_change: Response,
    /// To a misconfiguration that policy does not deny.
    pub misconfiguration: Response,
    /// To abuse and changes of workflow that no mature baseline vouches for: at most this.
    pub immature: Response,
    /// To what a task's declared scope or its time window rules out.
    pub outside: Response,
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            abuse: Response::Deny,
            workflow_change: Response::StepUp,
            misconfiguration: Response::Allow,
            immature: Response::StepUp,
            outside: Response::Deny,
        }
    }
}

impl Responses {
    /// To an assessment by a mature baseline.
    #[must_use]
    pub const fn to(&self, assessment: Assessment) -> Response {
        match assessment {
            Assessment::None => Response::Allow,
            Assessment::WorkflowChange => self.workflow_change,
            Assessment::Misconfiguration => self.misconfiguration,
            Assessment::Abuse => self.abuse,
        }
    }
}

impl Rules {
    /// Whether a reference in its short form lies in one of one's own domains.
    pub(super) fn is_own(&self, reference: &str) -> bool {
        // What stands behind a path or a query is not the host, whatever it looks like.
        let authority = host(reference);
        let name = authority.rsplit_once('@').map_or(authority, |(_, name)| name);
        let name = name.split(':').next().unwrap_or_default();
        self.own_domains.iter().any(|own| {
            let Some(cut) = name.len().checked_sub(own.len()) else { return false };
            let Some((head, tail)) = name.split_at_checked(cut) else { return false };
            tail.eq_ignore_ascii_case(own) && (head.is_empty() || head.ends_with('.'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_domains_end_at_a_dot() {
        let rules = Rules { own_domains: vec!["blue.com".into()], ..Rules::default() };
        for own in ["ann@blue.com", "ann@mail.BLUE.com", "blue.com/x?y", "blue.com:80"] {
            assert!(rules.is_own(own), "{own}");
        }
        for other in [
            "ann@notblue.com",
            "evil.com/blue.com",
            "blue.com.evil.io",
            "x",
            "evil.io?@blue.com",
            "blue.com@evil.io",
        ] {
            assert!(!rules.is_own(other), "{other}");
        }
    }
}
