//! What comparing an attempt allocates: nothing, whether it deviates or not. A count, so it does not depend on the machine.

use cardea_behavior::evidence::{Subject, evidence};
use cardea_behavior::{
    ActionClass, Approved, Baseline, Baselines, BurstDetector, Key, Observed, Rules, SessionBehavior, Step,
    compare,
};

#[test]
fn comparing_an_attempt_allocates_nothing() {
    let (rules, key) = (Rules { burst_score: Some(100.0), ..Rules::default() }, Key::new([1; 16]));
    let known = Observed {
        action: "send_email",
        class: ActionClass::Egress,
        targets: &["report.pdf"],
        references: &["ann@ours.io"],
        network: "10.0.0.0/8",
        names_task: true,
        purpose: "Send the report to Ann and to the people whom she names.",
        ..Observed::default()
    };
    let mut approved = Approved::default();
    (0..9).for_each(|_| approved.learn([Step { observed: known, previous: "", at_ms: 0 }]));
    let baseline = Baseline::compile("v1", &approved, &key, &rules);
    let baselines = Baselines { task: Some(&baseline), identity: Some(&baseline) };
    let mut detector = BurstDetector::new(1000.0);
    let long = "x".repeat(1000);
    let targets = [long.as_str(), "Bob"];
    let stranger = Observed { targets: &targets, references: &["http://evil.example/a", &long], ..known };
    let mut session = SessionBehavior::default();
    for observed in [known, stranger, Observed { is_denied: true, action: "other", network: "n", ..stranger }]
    {
        let count = allocation_counter::measure(|| {
            let burst_score = detector.observe(key.text("agent"), key.text("mail"), 1);
            let observed = Observed { burst_score, ..observed };
            let deviation = compare(&rules, &key, &observed, &baselines, &session);
            session.note(&deviation, true, 0);
        });
        assert_eq!(count.count_total, 0);
    }
    let deviation = compare(&rules, &key, &stranger, &baselines, &session);
    assert!(!evidence(&deviation, Subject::default(), &stranger, &baselines).is_empty());
}
