//! Entities from Cedar's JSON, closed under ancestry.
//!
//! Cedar's own closing treats the hierarchy as a general graph and takes most of the time of loading a large bundle. Here an
//! entity is closed after its parents, in one pass. What cannot be ordered so has a cycle; Cedar itself says which.

use ahash::{AHashMap, AHashSet};
use cedar_policy::Schema;
use cedar_policy::entities_errors::EntitiesError;
use cedar_policy_core::ast::{Entity, EntityUID};
use cedar_policy_core::entities::{Entities, EntityJsonParser, NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::validator::CoreSchema;

/// Reads entities as `cedar_policy::Entities::from_json_str` does.
///
/// # Errors
/// As there.
#[expect(clippy::result_large_err, reason = "Cedar's own error, once for each bundle")]
pub(crate) fn entities_from_json(
    json: &str,
    schema: &Schema,
) -> Result<cedar_policy::Entities, EntitiesError> {
    let core = CoreSchema::new(schema.as_ref());
    let extensions = Extensions::all_available();
    let parser = EntityJsonParser::new(Some(&core), extensions, TCComputation::AssumeAlreadyComputed);
    let entities = parser.from_json_str(json)?;
    let found = {
        let all: Vec<&Entity> = entities.iter().collect();
        distant(&all)
    };
    match found {
        Some(distant) if distant.is_empty() => Ok(entities.into()),
        Some(mut distant) => {
            let close = |mut entity: Entity| {
                for ancestor in distant.remove(entity.uid()).into_iter().flatten() {
                    entity.add_indirect_ancestor(ancestor);
                }
                entity
            };
            let closed: Vec<Entity> = entities.into_iter().map(close).collect();
            let how = TCComputation::AssumeAlreadyComputed;
            Ok(Entities::from_entities(closed, None::<&NoEntitiesSchema>, how, extensions)?.into())
        }
        None => {
            let how = TCComputation::ComputeNow;
            Ok(Entities::from_entities(entities, None::<&NoEntitiesSchema>, how, extensions)?.into())
        }
    }
}

/// The ancestors of each entity beyond its parents, for those that have such; `None` if there is a cycle.
fn distant(all: &[&Entity]) -> Option<AHashMap<EntityUID, Vec<EntityUID>>> {
    let number: AHashMap<&EntityUID, usize> =
        all.iter().enumerate().map(|(at, entity)| (entity.uid(), at)).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    let mut waits: Vec<usize> = vec![0; all.len()];
    for (at, entity) in all.iter().enumerate() {
        for parent in entity.parents().filter_map(|parent| number.get(parent)) {
            children.get_mut(*parent)?.push(at);
            *waits.get_mut(at)? += 1;
        }
    }
    let mut ready: Vec<usize> = (0..all.len()).filter(|at| waits.get(*at) == Some(&0)).collect();
    let mut done = 0;
    let mut distant: AHashMap<&EntityUID, AHashSet<&EntityUID>> = AHashMap::new();
    while let Some(at) = ready.pop() {
        done += 1;
        let entity = all.get(at)?;
        let mut found: AHashSet<&EntityUID> = AHashSet::new();
        for parent in entity.parents().filter_map(|parent| all.get(*number.get(parent)?)) {
            found.extend(parent.ancestors());
            found.extend(distant.get(parent.uid()).into_iter().flatten());
        }
        found.retain(|ancestor| !entity.is_descendant_of(ancestor));
        if !found.is_empty() {
            distant.insert(entity.uid(), found);
        }
        for child in children.get(at)? {
            let left = waits.get_mut(*child)?;
            *left -= 1;
            if *left == 0 {
                ready.push(*child);
            }
        }
    }
    let owned = |(uid, found): (&EntityUID, AHashSet<&EntityUID>)| {
        (uid.clone(), found.into_iter().cloned().collect())
    };
    (done == all.len()).then(|| distant.into_iter().map(owned).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schema() -> Schema {
        let text = "entity E in [E]; action top; action mid in [top]; action low in [mid] appliesTo { principal: E, resource: E };";
        Schema::from_cedarschema_str(text).unwrap().0
    }

    fn json(edges: &[(u8, u8)], entities: u8) -> String {
        let reference = |of: u8| serde_json::json!({ "type": "E", "id": of.to_string() });
        let parents = |of: u8| {
            edges.iter().filter(|(from, _)| *from == of).map(|(_, to)| reference(*to)).collect::<Vec<_>>()
        };
        let all: Vec<_> = (0..entities)
            .map(|of| serde_json::json!({ "uid": reference(of), "attrs": {}, "parents": parents(of) }))
            .collect();
        serde_json::to_string(&all).unwrap()
    }

    proptest! {
        /// Cedar's own closing is the oracle, for forests, graphs with several ways, unlisted parents and cycles.
        #[test]
        fn entities_are_closed_as_cedar_closes_them(
            edges in prop::collection::vec((0..8u8, 0..10u8), 0..14), falling in any::<bool>()
        ) {
            let edges: Vec<(u8, u8)> = edges.into_iter().filter(|(from, to)| !falling || from < to).collect();
            let (json, schema) = (json(&edges, 8), schema());
            let ours = entities_from_json(&json, &schema);
            let theirs = cedar_policy::Entities::from_json_str(&json, Some(&schema));
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (ours, theirs) => prop_assert_eq!(ours.is_err(), theirs.is_err()),
            }
        }
    }
}
