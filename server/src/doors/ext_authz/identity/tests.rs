//! Each source of identity, each rule, each attack on it.

use cardea_policy_store::routes::RouteTable;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;

use super::{super::testing::*, *};

fn ask(
    attributes: &AttributeContext,
    sources: &str,
    node: &ExtAuthzConfig,
) -> Result<Identity, IdentityError> {
    let table = RouteTable::parse("routes.toml", &identity_toml(sources)).unwrap();
    let http = attributes.request.clone().and_then(|request| request.http).unwrap_or_default();
    identify(attributes, &Headers::new(&http, node).unwrap(), table.identity(), node)
}

fn mtls(principal: &str) -> Result<Identity, IdentityError> {
    ask(&attributes(HttpRequest::default(), principal, None), "\"mtls\"", &ExtAuthzConfig::default())
}

fn xfcc(headers: &[(&str, &[u8])]) -> Result<Identity, IdentityError> {
    let node = ExtAuthzConfig { trust_xfcc: true, ..ExtAuthzConfig::default() };
    let http = HttpRequest { header_map: Some(raw_headers(headers)), ..Default::default() };
    ask(&attributes(http, "", None), "\"xfcc\"", &node)
}

fn jwt(claims: serde_json::Value) -> Result<Identity, IdentityError> {
    ask(&attributes(HttpRequest::default(), "", Some(claims)), "\"jwt\"", &ExtAuthzConfig::default())
}

fn fault(answer: Result<Identity, IdentityError>) -> IdentityFault {
    match answer {
        Err(IdentityError::Invalid { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

fn malformed(claim: &str) -> IdentityFault {
    IdentityFault::MalformedClaim(claim.to_owned())
}

fn names(identity: &Identity) -> (String, Vec<String>) {
    (identity.principal.to_string(), identity.delegation.iter().map(ToString::to_string).collect())
}

#[test]
fn the_connection_names_a_workload() {
    let identity = mtls("spiffe://td/web").unwrap();
    assert_eq!(names(&identity), ("Workload::\"spiffe://td/web\"".to_owned(), vec![]));
    assert!(mtls("https://accounts.example/7").is_ok());
    assert_eq!(mtls(""), Err(IdentityError::Absent));
}

#[test]
fn a_principal_that_is_no_uri_or_a_bent_spiffe_id_is_no_identity() {
    for principal in ["web.example.org", "CN=web,O=x", ":", "x:", "1x:y", "urn:a b", "urn:a\"b", "https://é"]
    {
        assert_eq!(fault(mtls(principal)), IdentityFault::NotUri, "{principal}");
    }
    for principal in
        ["spiffe://TD/web", "SPIFFE://td/web", "spiffe://td/web/", "spiffe:td/web", "spiffe://td/../web"]
    {
        assert!(matches!(fault(mtls(principal)), IdentityFault::Spiffe(_)), "{principal}");
    }
    let long = format!("urn:{}", "a".repeat(ENTITY_ID_BYTES_MAX));
    assert!(matches!(fault(mtls(&long)), IdentityFault::Spiffe(SpiffeError::TooLong)));
}

#[test]
fn listed_trust_domains_exclude_all_else() {
    let config = IdentityConfig {
        sources: vec![IdentitySource::Mtls(CertIdentity {
            entity_type: "Workload".into(),
            trust_domains: vec!["td".into()],
        })],
    };
    let ask = |principal| {
        let attributes = attributes(HttpRequest::default(), principal, None);
        let (http, node) = (HttpRequest::default(), ExtAuthzConfig::default());
        identify(&attributes, &Headers::new(&http, &node).unwrap(), &config, &node)
    };
    assert!(ask("spiffe://td/x").is_ok());
    for principal in ["spiffe://td.evil/x", "spiffe://other/x", "https://td/x"] {
        assert_eq!(fault(ask(principal)), IdentityFault::TrustDomain);
    }
}

#[test]
fn xfcc_names_the_last_proxys_client() {
    let header = b"By=x;URI=spiffe://td/forged,By=y;Subject=\"a,b\";URI=spiffe://td/peer";
    let identity = xfcc(&[("x-forwarded-client-cert", header)]).unwrap();
    assert_eq!(identity.principal.id, "spiffe://td/peer");
    assert_eq!(xfcc(&[]), Err(IdentityError::Absent));
}

#[test]
fn xfcc_that_is_ambiguous_or_malformed_is_no_identity() {
    let one = |value: &[u8]| fault(xfcc(&[("x-forwarded-client-cert", value)]));
    assert_eq!(one(b"URI=spiffe://td/a;URI=spiffe://td/b"), IdentityFault::SeveralUris);
    assert_eq!(one(b"By=spiffe://td/gw"), IdentityFault::NoUri);
    assert_eq!(one(b""), IdentityFault::Xfcc(XfccError::Empty));
    assert!(matches!(one(b"\xff"), IdentityFault::Header(HeaderError::NotUtf8(_))));
    let good: &[u8] = b"URI=spiffe://td/a";
    let twice = fault(xfcc(&[("x-forwarded-client-cert", good), ("X-Forwarded-Client-Cert", good)]));
    assert!(matches!(twice, IdentityFault::Header(HeaderError::Duplicate(_))));
}

#[test]
fn xfcc_is_not_believed_unless_the_node_is_told_to() {
    let header: &[u8] = b"URI=spiffe://td/admin";
    let http = HttpRequest { header_map: Some(raw_headers(&[(XFCC_HEADER, header)])), ..Default::default() };
    let attributes = attributes(http, "spiffe://td/web", None);
    let node = ExtAuthzConfig::default();
    assert_eq!(fault(ask(&attributes, "\"xfcc\", \"mtls\"", &node)), IdentityFault::NotTrusted);
    // Where the bundle does not read the header at all it is no identity and no obstacle.
    assert_eq!(ask(&attributes, "\"mtls\"", &node).unwrap().principal.id, "spiffe://td/web");
}

#[test]
fn a_token_names_caller_session_and_claims() {
    let identity = jwt(serde_json::json!({
        "iss": "https://idp", "sub": "agent-7", "sid": "s-1", "iat": 1_760_000_000, "exp": 1_760_000_300,
        "auth_time": 1_759_999_000, "acr": "loa2", "amr": ["mfa", "hwk"], "scope": "read  write"
    }))
    .unwrap();
    assert_eq!(names(&identity), ("Agent::\"agent-7\"".to_owned(), vec![]));
    assert_eq!(identity.session_id.as_deref(), Some("s-1"));
    let token = identity.token.unwrap();
    assert_eq!((token.issued_at_s, token.expires_at_s), (Some(1_760_000_000), Some(1_760_000_300)));
    assert_eq!((token.auth_time_s, token.acr.as_deref()), (Some(1_759_999_000), Some("loa2")));
    assert_eq!((token.scopes.len(), token.amr.len()), (2, 2));
    assert_eq!(jwt(serde_json::json!({"sub": "a", "scp": ["x"]})).unwrap().token.unwrap().scopes, ["x"]);
    assert_eq!(jwt(serde_json::json!({"sub": "a"})).unwrap().session_id, None);
}

#[test]
fn a_claim_of_the_wrong_shape_is_no_identity() {
    use serde_json::json;
    let long = "a".repeat(ENTITY_ID_BYTES_MAX + 1);
    let table = [
        (json!({}), IdentityFault::MissingClaim("sub".to_owned())),
        (json!({"sub": ""}), malformed("sub")),
        (json!({"sub": 7}), malformed("sub")),
        (json!({"sub": null}), malformed("sub")),
        (json!({"sub": "a\r\nx"}), malformed("sub")),
        (json!({"sub": long}), malformed("sub")),
        (json!({"sub": "a", "iat": 1.5}), malformed("iat")),
        (json!({"sub": "a", "iat": -1}), malformed("iat")),
        (json!({"sub": "a", "exp": 1e300}), malformed("exp")),
        (json!({"sub": "a", "exp": "1760000000"}), malformed("exp")),
        (json!({"sub": "a", "exp": null}), malformed("exp")),
        (json!({"sub": "a", "iss": ["x"]}), malformed("iss")),
        (json!({"sub": "a", "scope": 7}), malformed("scope")),
        (json!({"sub": "a", "scope": [7]}), malformed("scope")),
        (json!({"sub": "a", "sid": {}}), malformed("sid")),
        (json!({"sub": "a", "sid": "s".repeat(129)}), malformed("sid")),
        (json!({"sub": "a", "act": null}), malformed("act")),
        (json!({"sub": "a", "act": "b"}), malformed("act")),
        (json!("text"), malformed("jwt_payload")),
    ];
    for (claims, expected) in table {
        assert_eq!(fault(jwt(claims.clone())), expected, "{claims}");
    }
}

#[test]
fn not_a_number_and_infinity_are_no_times() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, SAFE_INTEGER_MAX + 1.0] {
        let fields = HashMap::from([("iat".to_owned(), Value { kind: Some(Kind::NumberValue(number)) })]);
        assert_eq!(Claims { fields: &fields }.seconds("iat"), Err(malformed("iat")));
    }
}

#[test]
fn act_makes_the_actor_the_caller_and_the_subject_the_root() {
    use serde_json::json;
    let one = jwt(json!({"iss": "i", "sub": "ann", "act": {"iss": "i", "sub": "agent"}})).unwrap();
    assert_eq!(names(&one), ("Agent::\"agent\"".to_owned(), vec!["User::\"ann\"".to_owned()]));
    let three =
        jwt(json!({"sub": "ann", "act": {"sub": "c", "act": {"sub": "b", "act": {"sub": "a"}}}})).unwrap();
    let delegation = ["User::\"ann\"", "Agent::\"a\"", "Agent::\"b\""].map(str::to_owned).to_vec();
    assert_eq!(names(&three), ("Agent::\"c\"".to_owned(), delegation));
}

#[test]
fn a_doubtful_chain_is_no_identity() {
    use serde_json::json;
    assert_eq!(fault(jwt(json!({"sub": "ann", "act": {}}))), IdentityFault::MissingClaim("sub".to_owned()));
    assert_eq!(
        fault(jwt(json!({"iss": "i", "sub": "a", "act": {"iss": "j", "sub": "b"}}))),
        IdentityFault::Issuer
    );
    assert_eq!(fault(jwt(json!({"sub": "a", "act": {"iss": "j", "sub": "b"}}))), IdentityFault::Issuer);
    let chain = |actors: usize| {
        let deepest = json!({"sub": "x"});
        let act = (1..actors).fold(deepest, |inner, n| json!({"sub": format!("a{n}"), "act": inner}));
        jwt(json!({"sub": "ann", "act": act}))
    };
    assert_eq!(chain(DELEGATION_MAX).unwrap().delegation.len(), DELEGATION_MAX);
    assert_eq!(fault(chain(DELEGATION_MAX + 1)), IdentityFault::DelegationTooLong);
}

#[test]
fn delegation_and_issuers_follow_the_bundle() {
    let config = |delegation_type: Option<&str>, issuers: &[&str]| IdentityConfig {
        sources: vec![IdentitySource::Jwt(JwtIdentity {
            payload: "jwt_payload".into(),
            entity_type: "Agent".into(),
            claim: "sub".into(),
            session_claim: None,
            delegation_type: delegation_type.map(SmolStr::new),
            issuers: issuers.iter().map(SmolStr::new).collect(),
        })],
    };
    let ask = |config: &IdentityConfig, claims| {
        let attributes = attributes(HttpRequest::default(), "", Some(claims));
        let (http, node) = (HttpRequest::default(), ExtAuthzConfig::default());
        identify(&attributes, &Headers::new(&http, &node).unwrap(), config, &node)
    };
    let delegated = serde_json::json!({"sub": "ann", "act": {"sub": "agent"}});
    assert_eq!(fault(ask(&config(None, &[]), delegated)), IdentityFault::DelegationNotConfigured);
    let listed = config(None, &["https://a", "https://b"]);
    assert!(ask(&listed, serde_json::json!({"iss": "https://b", "sub": "x"})).is_ok());
    for claims in [serde_json::json!({"sub": "x"}), serde_json::json!({"iss": "https://b/", "sub": "x"})] {
        assert_eq!(fault(ask(&listed, claims)), IdentityFault::Issuer);
    }
}

#[test]
fn the_first_source_that_is_there_decides_even_if_it_is_invalid() {
    let node = ExtAuthzConfig::default();
    let good =
        attributes(HttpRequest::default(), "spiffe://td/web", Some(serde_json::json!({"sub": "agent"})));
    assert_eq!(ask(&good, "\"jwt\", \"mtls\"", &node).unwrap().principal.entity_type, "Agent");
    assert_eq!(ask(&good, "\"mtls\", \"jwt\"", &node).unwrap().principal.entity_type, "Workload");
    let spoiled = attributes(HttpRequest::default(), "spiffe://td/web", Some(serde_json::json!({"sub": 7})));
    assert_eq!(fault(ask(&spoiled, "\"jwt\", \"mtls\"", &node)), malformed("sub"));
    let without = attributes(HttpRequest::default(), "spiffe://td/web", None);
    assert_eq!(ask(&without, "\"jwt\", \"mtls\"", &node).unwrap().principal.entity_type, "Workload");
}
