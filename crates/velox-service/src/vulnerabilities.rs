//! Looks up the versions of builds in a Go vulnerability database.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking};
use velox_api::BuildId;
use velox_build::{Error, Lock};
use velox_query::VersionAudit;

/// How long a result is reused: the public database changes several times a week.
const CACHE_DURATION: Duration = Duration::from_secs(10 * 60);
/// The number of results that are kept.
const MAX_CACHED: usize = 100;
/// The number of concurrent lookups; each reads the index of the database.
const MAX_LOOKUPS: usize = 2;

/// A vulnerability database.
pub(crate) struct Vulnerabilities {
    database: String,
    environment: BTreeMap<String, String>,
    cache: Mutex<BTreeMap<BuildId, (Instant, Arc<VersionAudit>)>>,
    lookups: Semaphore,
}

impl Vulnerabilities {
    pub(crate) fn new(database: String, environment: BTreeMap<String, String>) -> Self {
        Self { database, environment, cache: Mutex::default(), lookups: Semaphore::new(MAX_LOOKUPS) }
    }

    /// The known vulnerabilities of the versions of a build.
    pub(crate) async fn of_build(&self, id: BuildId, lock: String) -> Result<Arc<VersionAudit>, Error> {
        let turn = self.lookups.acquire().await;
        let _turn = turn.map_err(|_| Error::build("the service is shutting down"))?;
        if let Some(known) = self.cached(id) {
            return Ok(known);
        }
        let (database, environment, runtime) =
            (self.database.clone(), self.environment.clone(), Handle::current());
        // Parsing the index takes long.
        let lookup = move || {
            let lock = Lock::parse("velox.lock", &lock)?;
            runtime.block_on(VersionAudit::load(&database, &environment, &lock))
        };
        let found = spawn_blocking(lookup).await;
        let found = Arc::new(found.map_err(|error| Error::build(format!("internal error: {error}")))??);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(id, (Instant::now(), Arc::clone(&found)));
        Ok(found)
    }

    fn cached(&self, id: BuildId) -> Option<Arc<VersionAudit>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, known) = cache.get(&id)?;
        (since.elapsed() < CACHE_DURATION).then(|| Arc::clone(known))
    }
}
