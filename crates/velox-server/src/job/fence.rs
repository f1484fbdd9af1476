//! What the kernel itself keeps a job from, where it can (<https://docs.kernel.org/userspace-api/landlock.html>).

use std::{collections::BTreeMap, path::PathBuf};

use super::task::Task;

/// From here on this thread, and all threads and processes that it starts, connect to the job's way out and to nothing
/// else, and write where jobs write. Older kernels know less of that, and then it is the job's environment alone that
/// leads it the right way.
#[cfg(target_os = "linux")]
pub(super) fn enclose(task: &Task, environment: &BTreeMap<String, String>) -> Result<(), String> {
    use landlock::{
        ABI, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, path_beneath_rules,
    };
    // What a newer kernel could keep it from besides, isn't asked for.
    let abi = ABI::V4;
    let written = AccessFs::from_write(abi);
    let ruleset = Ruleset::default()
        .handle_access(written)
        .and_then(|ruleset| ruleset.handle_access(AccessNet::ConnectTcp))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(places(task, environment), written)))
        .and_then(|ruleset| ruleset.add_rule(NetPort::new(task.port, AccessNet::ConnectTcp)))
        .and_then(landlock::RulesetCreated::restrict_self);
    ruleset.map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn enclose(_: &Task, _: &BTreeMap<String, String>) -> Result<(), String> {
    Ok(())
}

/// Where a job writes: made where they are missing, since nobody can do it later.
#[cfg(target_os = "linux")]
fn places(task: &Task, environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let caches = ["HOME", "GOPATH", "VX_CACHE_DIR", "GOMODCACHE", "GOCACHE"];
    let mut places: Vec<PathBuf> =
        caches.iter().filter_map(|name| environment.get(*name)).map(PathBuf::from).collect();
    for place in &places {
        // Whoever writes there says what is wrong with it.
        let _ = std::fs::create_dir_all(place);
    }
    places.extend([task.directory.clone(), PathBuf::from("/dev/null")]);
    places
}
