//! What a trust policy is told of a request, the same for every way to become a role.
//!
//! What always holds: tags and a source identity are let in by actions of their own.

use std::collections::BTreeMap;

use gantry_api::RequestContext;

use crate::model::trust::{Caller, TrustRequest, allows};
use crate::tables::{RoleRow, SessionTerms};

/// The values of condition keys, gathered.
pub(super) struct Facts {
    values: BTreeMap<String, Vec<String>>,
}

impl Facts {
    /// What there is to say of a session that is asked for, whoever asks.
    pub fn of_session(
        ctx: &RequestContext,
        session_name: &str,
        duration_s: i32,
        terms: &SessionTerms,
    ) -> Self {
        let mut facts = Self {
            values: BTreeMap::new(),
        };
        let epoch_s = ctx.now.as_epoch_seconds_f64().floor();
        facts.tell("aws:CurrentTime", [ctx.now.to_string()]);
        facts.tell("aws:EpochTime", [epoch_s.to_string()]);
        facts.tell("sts:RoleSessionName", [session_name.to_owned()]);
        facts.tell("sts:DurationSeconds", [duration_s.to_string()]);
        facts.tell("sts:SourceIdentity", terms.source_identity.clone());
        for (key, value) in &terms.tags {
            facts.tell(&format!("aws:RequestTag/{key}"), [value.clone()]);
        }
        facts.tell("aws:TagKeys", terms.tags.keys().cloned());
        facts.tell("sts:TransitiveTagKeys", terms.transitive.iter().cloned());
        facts
    }

    /// A key without values is one that the request does not have.
    pub fn tell(&mut self, key: &str, values: impl IntoIterator<Item = String>) {
        let values: Vec<String> = values.into_iter().collect();
        if !values.is_empty() {
            self.values.insert(key.to_lowercase(), values);
        }
    }

    /// The request of this caller. `told` are the keys that it would have if there were anything to say.
    pub fn of(self, caller: Caller, told: impl IntoIterator<Item = String>) -> TrustRequest {
        TrustRequest {
            caller,
            told: told.into_iter().map(|key| key.to_lowercase()).collect(),
            values: self.values,
        }
    }
}

/// Whether the role's trust policy lets the caller begin a session on these terms by `action`.
pub(super) fn lets_in(
    role: &RoleRow,
    action: &str,
    request: &TrustRequest,
    terms: &SessionTerms,
) -> bool {
    let allows = |action| allows(&role.trust_policy, action, request);
    allows(action)
        && (terms.tags.is_empty() || allows("sts:TagSession"))
        && (terms.source_identity.is_none() || allows("sts:SetSourceIdentity"))
}
