//! What was asked for a moment ago, and was finished: the same again is answered without reading anything.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use velox_api::BuildSpec;

use crate::build::Build;

/// For how long a store needn't be asked. It may remove a build meanwhile: whoever answers looks whether its binary is there.
const FRESH: Duration = Duration::from_secs(10);
/// How many are remembered; each is about as large as its lock.
const MOST: usize = 128;

/// Finished builds by the words in which they were asked for.
#[derive(Debug, Default)]
pub struct Lately(Mutex<HashMap<Vec<u8>, Known>>);

/// A build, and since when it is known.
type Known = (Instant, Arc<Build>);

impl Lately {
    /// The words of a request; `None` where its answer may be another one by now.
    pub(crate) fn words(spec: &BuildSpec) -> Option<Vec<u8>> {
        spec.is_exact().then(|| serde_json::to_vec(spec).ok()).flatten()
    }

    pub(crate) fn get(&self, words: &[u8]) -> Option<Arc<Build>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(words).filter(|(since, _)| since.elapsed() < FRESH).map(|(_, build)| Arc::clone(build))
    }

    pub(crate) fn put(&self, words: Vec<u8>, build: Arc<Build>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (since, _)| since.elapsed() < FRESH);
        }
        if known.len() < MOST {
            known.insert(words, (Instant::now(), build));
        }
    }
}

#[cfg(test)]
mod tests {
    use velox_api::{BuildId, BuildState, PluginSpec};

    use super::*;
    use crate::build::Tenant;

    fn spec(reference: &str) -> BuildSpec {
        BuildSpec::new("v2025.1.5", vec![PluginSpec::new("github.com/roadrunner-server/http/v5", reference)])
    }

    #[test]
    fn what_may_mean_something_else_by_now_is_not_remembered() {
        assert!(Lately::words(&spec("master")).is_none());
        let words = Lately::words(&spec("v5.2.7")).unwrap();
        let build = Arc::new(Build {
            id: BuildId::new(),
            key: spec("v5.2.7").key().unwrap(),
            spec: spec("v5.2.7"),
            force: false,
            state: BuildState::Succeeded,
            tenant: Tenant("one".to_owned()),
            wanted_by: [].into(),
            trace: None,
            attempts: 1,
            created: jiff::Timestamp::UNIX_EPOCH,
            started: None,
            finished: None,
            outcome: None,
        });
        let lately = Lately::default();
        lately.put(words.clone(), build.clone());
        assert_eq!(lately.get(&words), Some(build.clone()));
        let newer = Arc::new(Build { id: BuildId::new(), ..(*build).clone() });
        lately.put(words.clone(), newer.clone());
        assert_eq!(lately.get(&words), Some(newer));
        assert_eq!(lately.get(&Lately::words(&spec("v5.2.8")).unwrap()), None);
        // However many are asked for, no more than that are kept.
        for number in 0..2 * MOST {
            lately.put(number.to_le_bytes().to_vec(), build.clone());
        }
        assert!(lately.0.lock().unwrap().len() <= MOST);
        // What was a while ago counts no more, and makes room.
        let Some(then) = Instant::now().checked_sub(FRESH) else { return };
        lately.0.lock().unwrap().values_mut().for_each(|(since, _)| *since = then);
        assert_eq!(lately.get(&words), None);
        lately.put(b"new".to_vec(), build.clone());
        assert_eq!(lately.get(b"new"), Some(build));
        assert_eq!(lately.0.lock().unwrap().len(), 1);
    }
}
