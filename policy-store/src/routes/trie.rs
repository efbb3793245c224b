//! The index from (path, method, host) to a route: a trie over path segments.
//!
//! Owns precedence: per segment from the left a literal beats a parameter beats the rest; then a named method
//! beats `*`; then a named host beats any host. Among routes that all match, exactly one comes first.
//! Cost: each node of the trie is visited at most once per match, and a table without overlapping patterns
//! visits one node per segment, whatever the number of routes. Depth is bounded by the pattern limit (64).

use std::{borrow::Cow, collections::BTreeMap};

use ahash::AHashMap;
use smol_str::SmolStr;

use super::pattern::{Pattern, Segment};

/// Position of a route in its table.
pub(super) type RouteIndex = usize;

/// The trie. Immutable once built.
#[derive(Debug, Default)]
pub(super) struct Trie {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: AHashMap<SmolStr, Self>,
    param: Option<Box<Self>>,
    ends: Ends,
    rest: Ends,
}

/// Routes that end at a node; `/a` and `/a/` are two paths.
#[derive(Debug, Default)]
struct Ends {
    plain: Methods,
    slash: Methods,
}

#[derive(Debug, Default)]
struct Methods {
    named: BTreeMap<SmolStr, Hosts>,
    any: Hosts,
}

#[derive(Debug, Default)]
struct Hosts {
    named: BTreeMap<SmolStr, RouteIndex>,
    any: Option<RouteIndex>,
}

impl Trie {
    /// Adds a route under one method (`None`: any) and one host (`None`: any).
    ///
    /// # Errors
    /// With the route that already holds this very place.
    pub(super) fn insert(
        &mut self,
        pattern: &Pattern,
        method: Option<&SmolStr>,
        host: Option<&SmolStr>,
        route: RouteIndex,
    ) -> Result<(), RouteIndex> {
        let mut node = &mut self.root;
        let mut to_rest = false;
        for segment in &pattern.segments {
            match segment {
                Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Segment::Param(_) => node = node.param.get_or_insert_default(),
                Segment::Rest(_) => to_rest = true,
            }
        }
        let ends = if to_rest { &mut node.rest } else { &mut node.ends };
        let methods = if pattern.trailing_slash { &mut ends.slash } else { &mut ends.plain };
        let hosts = match method {
            Some(method) => methods.named.entry(method.clone()).or_default(),
            None => &mut methods.any,
        };
        let holder = match host {
            Some(host) => *hosts.named.entry(host.clone()).or_insert(route),
            None => *hosts.any.get_or_insert(route),
        };
        if holder == route { Ok(()) } else { Err(holder) }
    }

    /// The most specific route; `host` is lower case and has no port.
    pub(super) fn find(
        &self,
        segments: &[Cow<'_, str>],
        trailing_slash: bool,
        method: &str,
        host: &str,
    ) -> Option<RouteIndex> {
        self.root.find(segments, &Wanted { trailing_slash, method, host })
    }
}

struct Wanted<'a> {
    trailing_slash: bool,
    method: &'a str,
    host: &'a str,
}

impl Node {
    fn find(&self, segments: &[Cow<'_, str>], wanted: &Wanted<'_>) -> Option<RouteIndex> {
        let Some((first, below)) = segments.split_first() else {
            return self.ends.pick(wanted);
        };
        let literal = self.literals.get(first.as_ref()).and_then(|node| node.find(below, wanted));
        let param = || self.param.as_ref().and_then(|node| node.find(below, wanted));
        literal.or_else(param).or_else(|| self.rest.pick(wanted))
    }
}

impl Ends {
    fn pick(&self, wanted: &Wanted<'_>) -> Option<RouteIndex> {
        let methods = if wanted.trailing_slash { &self.slash } else { &self.plain };
        let named = methods.named.get(wanted.method).and_then(|hosts| hosts.pick(wanted.host));
        named.or_else(|| methods.any.pick(wanted.host))
    }
}

impl Hosts {
    fn pick(&self, host: &str) -> Option<RouteIndex> {
        self.named.get(host).copied().or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::target::Target;

    fn trie(routes: &[(&str, &str, &str)]) -> Trie {
        let mut trie = Trie::default();
        for (index, (method, path, host)) in routes.iter().enumerate() {
            let method = (*method != "*").then(|| SmolStr::new(method));
            let host = (!host.is_empty()).then(|| SmolStr::new(host));
            trie.insert(&Pattern::parse(path).unwrap(), method.as_ref(), host.as_ref(), index).unwrap();
        }
        trie
    }

    fn find(trie: &Trie, method: &str, target: &str, host: &str) -> Option<RouteIndex> {
        let target = Target::parse(target).unwrap();
        trie.find(target.segments(), target.trailing_slash(), method, host)
    }

    #[test]
    fn a_literal_beats_a_parameter_beats_the_rest() {
        let trie = trie(&[
            ("GET", "/{a...}", ""),
            ("GET", "/{a}/b", ""),
            ("GET", "/x/b", ""),
            ("GET", "/x/{b...}", ""),
        ]);
        assert_eq!(find(&trie, "GET", "/x/b", ""), Some(2));
        assert_eq!(find(&trie, "GET", "/y/b", ""), Some(1));
        assert_eq!(find(&trie, "GET", "/x/c", ""), Some(3));
        assert_eq!(find(&trie, "GET", "/x/b/c", ""), Some(3));
        assert_eq!(find(&trie, "GET", "/y/c", ""), Some(0));
        assert_eq!(find(&trie, "GET", "/x", ""), Some(0));
    }

    #[test]
    fn a_dead_end_falls_back_to_the_less_specific_branch() {
        let trie = trie(&[("GET", "/a/b/c", ""), ("GET", "/a/{x}/d", ""), ("GET", "/{r...}", "")]);
        assert_eq!(find(&trie, "GET", "/a/b/d", ""), Some(1));
        assert_eq!(find(&trie, "GET", "/a/b/e", ""), Some(2));
    }

    #[test]
    fn path_outranks_method_and_method_outranks_host() {
        let trie = trie(&[
            ("*", "/a", "h"),
            ("GET", "/a", ""),
            ("GET", "/a", "h"),
            ("*", "/b", "h"),
            ("GET", "/b", ""),
            ("*", "/b", ""),
        ]);
        assert_eq!(find(&trie, "GET", "/a", "h"), Some(2));
        assert_eq!(find(&trie, "GET", "/a", "other"), Some(1));
        assert_eq!(find(&trie, "PUT", "/a", "h"), Some(0));
        assert_eq!(find(&trie, "PUT", "/a", "other"), None);
        assert_eq!(find(&trie, "GET", "/b", "h"), Some(4));
        assert_eq!(find(&trie, "PUT", "/b", "h"), Some(3));
        assert_eq!(find(&trie, "PUT", "/b", "other"), Some(5));
    }

    #[test]
    fn a_trailing_slash_is_another_path_also_for_the_rest() {
        let trie = trie(&[
            ("GET", "/a", ""),
            ("GET", "/b/", ""),
            ("GET", "/f/{r...}", ""),
            ("GET", "/d/{r...}/", ""),
        ]);
        assert_eq!(find(&trie, "GET", "/a", ""), Some(0));
        assert_eq!(find(&trie, "GET", "/a/", ""), None);
        assert_eq!(find(&trie, "GET", "/b/", ""), Some(1));
        assert_eq!(find(&trie, "GET", "/b", ""), None);
        assert_eq!(find(&trie, "GET", "/f/x/y", ""), Some(2));
        assert_eq!(find(&trie, "GET", "/f/x/", ""), None);
        assert_eq!(find(&trie, "GET", "/f/", ""), None);
        assert_eq!(find(&trie, "GET", "/f", ""), None);
        assert_eq!(find(&trie, "GET", "/d/x/", ""), Some(3));
    }

    #[test]
    fn the_root_and_an_empty_table_are_not_special() {
        assert_eq!(find(&Trie::default(), "GET", "/", ""), None);
        assert_eq!(find(&trie(&[("GET", "/", "")]), "GET", "/", ""), Some(0));
        assert_eq!(find(&trie(&[("GET", "/{r...}", "")]), "GET", "/", ""), None);
    }

    #[test]
    fn methods_are_case_sensitive() {
        let trie = trie(&[("GET", "/a", "")]);
        assert_eq!(find(&trie, "get", "/a", ""), None);
    }

    #[test]
    fn one_place_holds_one_route() {
        let mut trie = trie(&[("GET", "/{a}/b", "")]);
        let same = Pattern::parse("/{other}/b").unwrap();
        assert_eq!(trie.insert(&same, Some(&"GET".into()), None, 9), Err(0));
        assert_eq!(trie.insert(&same, Some(&"GET".into()), None, 0), Ok(()));
        assert_eq!(trie.insert(&same, None, None, 9), Ok(()));
        assert_eq!(trie.insert(&same, Some(&"GET".into()), Some(&"h".into()), 9), Ok(()));
    }
}
