use std::process::Command;

use super::*;
use crate::load::Files;
use crate::pack;

fn packed(revision: u64) -> Packed {
    let files = Files::from([("bundle.toml".into(), format!("# {revision}").repeat(50).into_bytes())]);
    Packed::new(pack::manifest_for("t", revision, &files), &files).unwrap()
}

fn in_force(revision: u64) -> InForce {
    InForce { revision, digest: packed(revision).digest(), rollback_of: None }
}

fn install(disk: &mut Disk, revision: u64) {
    disk.keep(&packed(revision)).unwrap();
    disk.commit(in_force(revision)).unwrap();
    disk.prune(2, &[]);
}

/// A process that another test starts has the locks of this one until it has become the other program.
fn opened(dir: &Path) -> Result<Disk, DiskError> {
    for _ in 0..500 {
        match Disk::open(dir) {
            Err(DiskError::Locked(_)) => std::thread::sleep(std::time::Duration::from_millis(10)),
            opened => return opened,
        }
    }
    Disk::open(dir)
}

#[test]
fn what_is_in_force_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = opened(dir.path()).unwrap();
    assert_eq!((disk.floor(), disk.in_force()), (0, None));
    install(&mut disk, 3);
    install(&mut disk, 8);
    drop(disk);
    let disk = opened(dir.path()).unwrap();
    assert_eq!((disk.floor(), disk.in_force()), (8, Some(in_force(8))));
    assert_eq!(disk.read(packed(8).digest()).unwrap().unwrap(), packed(8).bytes());
    assert_eq!(disk.read(Digest::of(b"another")).unwrap(), None);
}

#[test]
fn the_floor_never_falls() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = opened(dir.path()).unwrap();
    install(&mut disk, 8);
    for not_higher in [0, 7, 8] {
        let offered = InForce { revision: not_higher, ..in_force(8) };
        let refused = disk.commit(offered).unwrap_err();
        assert!(matches!(refused, DiskError::BelowFloor { floor: 8, .. }), "{refused}");
    }
    drop(disk);
    assert_eq!(opened(dir.path()).unwrap().floor(), 8);
}

#[test]
fn the_oldest_make_room_and_what_is_needed_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = opened(dir.path()).unwrap();
    for revision in 1..=4 {
        disk.keep(&packed(revision)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    disk.commit(in_force(1)).unwrap();
    disk.prune(1, &[packed(2).digest()]);
    let kept = disk.kept().unwrap();
    assert_eq!(kept, [4, 2, 1].map(|revision| packed(revision).digest()));
}

#[test]
fn a_store_has_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let _held = Disk::open(dir.path()).unwrap();
    assert!(matches!(Disk::open(dir.path()), Err(DiskError::Locked(_))));
}

#[test]
fn a_damaged_state_is_said_and_not_overlooked() {
    let dir = tempfile::tempdir().unwrap();
    install(&mut opened(dir.path()).unwrap(), 3);
    let path = dir.path().join(STATE);
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        "",
        "{",
        &good.replace("\"floor\": 3", "\"floor\": 2"),
        &good.replace("\"format\": 1", "\"format\": 2"),
    ] {
        fs::write(&path, bad).unwrap();
        assert!(matches!(opened(dir.path()), Err(DiskError::Damaged { .. })), "{bad}");
    }
}

/// What the process of [`killed_at_each_step`] does: installs revision 2 over revision 1 and is killed at a step.
#[test]
fn installs_and_is_killed() {
    let Some(dir) = std::env::var_os("CARDEA_TEST_KILL_DIR") else { return };
    let mut disk = opened(Path::new(&dir)).unwrap();
    disk.after = Some(|_step| {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static STEPS: AtomicUsize = AtomicUsize::new(0);
        let wanted: usize = std::env::var("CARDEA_TEST_KILL_STEP").unwrap().parse().unwrap();
        if STEPS.fetch_add(1, Ordering::SeqCst) == wanted {
            let own = std::process::id().to_string();
            Command::new("kill").args(["-9", &own]).status().unwrap();
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    });
    install(&mut disk, 2);
}

#[test]
fn killed_at_each_step_of_an_install_the_store_holds_the_old_or_the_new_bundle_whole() {
    let own = std::env::current_exe().unwrap();
    let mut committed = 0;
    for step in 0.. {
        let dir = tempfile::tempdir().unwrap();
        install(&mut opened(dir.path()).unwrap(), 1);
        let child = Command::new(&own)
            .args(["--exact", "disk::tests::installs_and_is_killed"])
            .env("CARDEA_TEST_KILL_DIR", dir.path())
            .env("CARDEA_TEST_KILL_STEP", step.to_string())
            .output()
            .unwrap();
        let mut disk = opened(dir.path()).unwrap();
        let serves = disk.in_force().unwrap();
        let bytes = disk.read(serves.digest).unwrap().expect("what is in force is kept");
        assert_eq!(Packed::from_bytes(bytes).unwrap().unpack().unwrap().manifest.revision, serves.revision);
        assert!(serves == in_force(1) || serves == in_force(2), "{serves:?}");
        let names: Vec<_> =
            fs::read_dir(dir.path().join("bundles")).unwrap().map(|of| of.unwrap().path()).collect();
        assert!(names.iter().all(|name| name.extension().unwrap() == EXTENSION), "{names:?}");
        committed += usize::from(serves.revision == 2);
        // Whatever was left half done, the next install goes through.
        install(&mut disk, 3);
        if child.status.success() {
            assert!(step >= 10, "only {step} steps were stopped at");
            break;
        }
    }
    assert!(committed > 1, "some steps come after the commit");
}
