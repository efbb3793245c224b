//! One access attempt, already validated: its types are the bundle's, its parts are within limits.
//!
//! Only doors build attempts. Limits: [`DELEGATION_MAX`] hops above the principal, [`FIELDS_MAX`] fields sent by
//! the enforcement point, [`ID_BYTES_MAX`] bytes for an entity's id, [`NAME_BYTES_MAX`] for the attempt's and
//! the session's.

use std::sync::Arc;

use cardea_policy_store::engine::{ContextLayout, Record, TypeName, Uid};
use cardea_policy_store::snapshot::{Action, Snapshot};
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::reason::ReasonCode;
use crate::session::METHODS_MAX;

/// Most hops above the principal: user, agent, sub-agents; real chains have one to three.
pub const DELEGATION_MAX: usize = 7;
/// Most fields that an enforcement point may send.
pub const FIELDS_MAX: usize = 64;
/// Longest id of an entity, in bytes.
pub const ID_BYTES_MAX: usize = 1024;
/// Longest id of an attempt or a session, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Most scopes of a token.
pub const SCOPES_MAX: usize = 128;

/// What is known of the token that the caller presented.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Who issued it.
    pub issuer: SmolStr,
    /// When it was issued, Unix milliseconds.
    pub issued_ms: Option<i64>,
    /// First instant at which it no longer counts, Unix milliseconds.
    pub expires_ms: Option<i64>,
    /// What it is for.
    pub scopes: Vec<SmolStr>,
    /// Whether it is bound to a key that the caller proved to hold.
    pub bound: bool,
    /// Last active authentication, Unix milliseconds.
    pub authenticated_ms: Option<i64>,
    /// Authentication context class of that authentication.
    pub acr: SmolStr,
    /// Its methods.
    pub amr: Vec<SmolStr>,
}

impl Token {
    fn is_wordy(&self) -> bool {
        let texts = self.scopes.iter().chain(&self.amr).chain([&self.issuer, &self.acr]);
        texts.into_iter().any(|text| text.len() > ID_BYTES_MAX)
    }
}

/// An attempt's parts, as a door has read them.
#[derive(Clone, Debug, Default)]
pub struct Parts<'a> {
    /// The caller's own id for it.
    pub id: &'a str,
    /// Type and id of who acts.
    pub principal: (&'a str, &'a str),
    /// Type (empty: `Action`) and id of what it wants to do.
    pub action: (&'a str, &'a str),
    /// Type and id of what it wants to do it to.
    pub resource: (&'a str, &'a str),
    /// What the enforcement point sent.
    pub request: Record,
    /// The session; empty if none is known.
    pub session_id: &'a str,
    /// Those on whose behalf the principal acts, root first, as type and id.
    pub delegation: &'a [(&'a str, &'a str)],
    /// The token.
    pub token: Option<Token>,
    /// State that the answer must rest on at least.
    pub at_least_version: u64,
    /// The approved task; empty: the session's.
    pub task_id: &'a str,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The caller's own id for it.
    pub id: SmolStr,
    /// Who acts.
    pub principal: Uid,
    /// What it wants to do.
    pub action: Arc<Action>,
    /// What it wants to do it to.
    pub resource: Uid,
    /// What the enforcement point sent and the schema knows; the whole context where the caller gives that.
    pub request: Record,
    /// All that it sent, where the schema does not know a part of it: another snapshot's schema may.
    pub sent: Option<Record>,
    /// The session.
    pub session_id: Option<SmolStr>,
    /// Those on whose behalf the principal acts, root first.
    pub delegation: SmallVec<[Uid; 2]>,
    /// The token.
    pub token: Option<Arc<Token>>,
    /// State that the answer must rest on at least.
    pub at_least_version: u64,
    /// The approved task that it names.
    pub task_id: Option<SmolStr>,
}

/// Why parts do not make an attempt. The message is for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotAnAttempt {
    /// The reason to deny with.
    pub code: ReasonCode,
    /// What is wrong and what to do.
    pub message: String,
}

impl Attempt {
    /// Validates an attempt against the snapshot that will judge it.
    ///
    /// # Errors
    /// Missing or oversized parts; types, actions and fields that the schema does not have.
    pub fn new(snapshot: &Snapshot, parts: Parts<'_>) -> Result<Self, NotAnAttempt> {
        if [parts.id, parts.session_id, parts.task_id].iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(malformed(format!(
                "ids of attempts, sessions and tasks have at most {NAME_BYTES_MAX} bytes"
            )));
        }
        if parts.request.len() > FIELDS_MAX {
            return Err(malformed(format!("at most {FIELDS_MAX} context fields")));
        }
        if parts
            .token
            .as_ref()
            .is_some_and(|token| token.scopes.len() > SCOPES_MAX || token.amr.len() > METHODS_MAX)
        {
            return Err(malformed(format!(
                "a token has at most {SCOPES_MAX} scopes and {METHODS_MAX} methods"
            )));
        }
        if parts.token.as_ref().is_some_and(Token::is_wordy) {
            return Err(malformed(format!("texts of a token have at most {ID_BYTES_MAX} bytes")));
        }
        let principal = entity(snapshot, "principal", parts.principal)?;
        let resource = entity(snapshot, "resource", parts.resource)?;
        let action = action(snapshot, parts.action)?;
        let delegation = delegation(snapshot, parts.delegation)?;
        // What the schema does not know must not make two records unequal that policy compares.
        let known = match snapshot.layout() {
            ContextLayout::Gathered => action.without_surplus(&parts.request),
            ContextLayout::Given => None,
        };
        let (request, sent) = match known {
            Some(known) => (known, Some(parts.request)),
            None => (parts.request, None),
        };
        if snapshot.layout() == ContextLayout::Gathered {
            check_types(&action, &principal, &delegation, &resource, &request)?;
        }
        Ok(Self {
            id: parts.id.into(),
            principal,
            action,
            resource,
            request,
            sent,
            session_id: (!parts.session_id.is_empty()).then(|| parts.session_id.into()),
            delegation,
            token: parts.token.map(Arc::new),
            at_least_version: parts.at_least_version,
            task_id: (!parts.task_id.is_empty()).then(|| parts.task_id.into()),
        })
    }

    /// An attempt from ids that exist already, with the whole context given, as Cedar itself takes it.
    #[must_use]
    pub fn given(principal: Uid, action: Uid, resource: Uid, context: Record) -> Self {
        Self {
            id: SmolStr::default(),
            principal,
            action: Arc::new(Action::undeclared(action)),
            resource,
            request: context,
            sent: None,
            session_id: None,
            delegation: SmallVec::new(),
            token: None,
            at_least_version: 0,
            task_id: None,
        }
    }

    /// The same attempt, validated against another snapshot, as if that one were to judge it.
    ///
    /// # Errors
    /// Types, actions and fields that the other schema does not have.
    pub fn for_snapshot(&self, snapshot: &Snapshot) -> Result<Self, NotAnAttempt> {
        // A new bundle nearly always reads it as the last one did; why it does not is found out from the texts.
        self.as_before(snapshot).map_or_else(|| self.anew(snapshot), Ok)
    }

    /// For a snapshot in which the action has its old place and applies to the same types.
    fn as_before(&self, snapshot: &Snapshot) -> Option<Self> {
        let place = self.action.number.filter(|_| snapshot.layout() == ContextLayout::Gathered)?;
        let action = snapshot.actions().get(place).filter(|action| action.uid == self.action.uid)?;
        let sent = self.sent.as_ref().unwrap_or(&self.request);
        let (request, sent) = match action.without_surplus(sent) {
            Some(known) => (known, Some(sent.clone())),
            None => (sent.clone(), None),
        };
        check_types(action, &self.principal, &self.delegation, &self.resource, &request).ok()?;
        Some(Self { action: Arc::clone(action), request, sent, ..self.clone() })
    }

    fn anew(&self, snapshot: &Snapshot) -> Result<Self, NotAnAttempt> {
        let names = |uid: &Uid| (uid.type_text(), uid.id().to_owned());
        let (principal, action, resource) =
            (names(&self.principal), names(&self.action.uid), names(&self.resource));
        let delegation: SmallVec<[(String, String); 2]> = self.delegation.iter().map(names).collect();
        let delegation: SmallVec<[(&str, &str); 2]> = delegation.iter().map(pair).collect();
        Self::new(
            snapshot,
            Parts {
                id: &self.id,
                principal: pair(&principal),
                action: pair(&action),
                resource: pair(&resource),
                request: self.sent.as_ref().unwrap_or(&self.request).clone(),
                session_id: self.session_id.as_deref().unwrap_or(""),
                delegation: &delegation,
                token: self.token.as_deref().cloned(),
                at_least_version: self.at_least_version,
                task_id: self.task_id.as_deref().unwrap_or(""),
            },
        )
    }

    /// Everyone who must be permitted, root first, the principal last.
    pub fn hops(&self) -> impl Iterator<Item = &Uid> {
        self.delegation.iter().chain(std::iter::once(&self.principal))
    }
}

fn pair((type_name, id): &(String, String)) -> (&str, &str) {
    (type_name, id)
}

fn malformed(message: impl Into<String>) -> NotAnAttempt {
    NotAnAttempt { code: ReasonCode::Malformed, message: message.into() }
}

fn unknown(message: impl Into<String>) -> NotAnAttempt {
    NotAnAttempt { code: ReasonCode::UnknownType, message: message.into() }
}

fn entity(snapshot: &Snapshot, role: &str, (type_name, id): (&str, &str)) -> Result<Uid, NotAnAttempt> {
    if type_name.is_empty() {
        return Err(malformed(format!("the {role} is missing, or has no type")));
    }
    if id.len() > ID_BYTES_MAX {
        return Err(malformed(format!("the id of the {role} has more than {ID_BYTES_MAX} bytes")));
    }
    let name: &TypeName = snapshot.type_name(type_name).ok_or_else(|| {
        unknown(format!("the {role} has type `{}`, which is not in the schema", shortened(type_name)))
    })?;
    Ok(Uid::new(name, id))
}

fn action(snapshot: &Snapshot, (type_name, id): (&str, &str)) -> Result<Arc<Action>, NotAnAttempt> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(malformed(format!(
            "the action is missing, has no id, or one of more than {ID_BYTES_MAX} bytes"
        )));
    }
    let found = snapshot.action(type_name, id);
    found.cloned().ok_or_else(|| unknown(format!("action `{}` is not in the schema", shortened(id))))
}

fn delegation(snapshot: &Snapshot, hops: &[(&str, &str)]) -> Result<SmallVec<[Uid; 2]>, NotAnAttempt> {
    if hops.len() > DELEGATION_MAX {
        return Err(NotAnAttempt {
            code: ReasonCode::DelegationMalformed,
            message: format!("a delegation chain has at most {DELEGATION_MAX} hops"),
        });
    }
    hops.iter().map(|hop| entity(snapshot, "delegating party", *hop)).collect()
}

fn check_types(
    action: &Action,
    principal: &Uid,
    delegation: &[Uid],
    resource: &Uid,
    request: &Record,
) -> Result<(), NotAnAttempt> {
    if let Some(hop) = delegation.iter().chain([principal]).find(|hop| !action.applies(hop, resource)) {
        return Err(unknown(format!(
            "action `{}` does not apply to principals of type `{}` and resources of type `{}`",
            shortened(action.uid.id()),
            hop.type_text(),
            resource.type_text()
        )));
    }
    match action.misfit(request) {
        Some((field, wanted)) => {
            Err(malformed(format!("context field `{}` must be there as {wanted}", shortened(field))))
        }
        None => Ok(()),
    }
}

/// Enough of a text from outside to recognise it in a message.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
