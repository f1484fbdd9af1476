//! A search for the changes that break a test.
//!
//! With the changes in an order, the builds with the first 0, 1, 2, … of them are good up to some number, then bad: a
//! binary search finds the change at this place in log₂ n steps. If it doesn't break the test alone, it does together
//! with earlier ones: the next search, with this change applied to each build, finds another of them. As delta debugging
//! (<https://www.debugging.de/dd/>) the result is a set of changes none of which can be left out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// The test passes.
    Good,
    /// The test fails.
    Bad,
    /// The build fails, or the test can't tell.
    Skipped,
}

/// The result of [`search_changes`], as indices of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchResult {
    /// These changes break the test, and none can be left out.
    Found(BTreeSet<usize>),
    /// One of the candidates breaks the test together with the others: the steps between them were skipped.
    Ambiguous {
        /// The changes that are part of the cause.
        certain: BTreeSet<usize>,
        /// One of these is, too.
        candidates: BTreeSet<usize>,
    },
}

/// Searches `count` changes. The test is bad with all of them, and good without.
///
/// # Errors
/// The first error of `test`.
pub async fn search_changes<E>(
    count: usize,
    test: &mut impl AsyncFnMut(&BTreeSet<usize>) -> Result<StepOutcome, E>,
) -> Result<SearchResult, E> {
    let mut certain: BTreeSet<usize> = BTreeSet::new();
    let mut limit = count;
    // Whether the changes found so far don't build without others: a build that lacks one of these is skipped, too.
    let mut needs_more = false;
    while limit > 0 {
        // With the first `good` changes it is not bad, with the first `bad` ones it is.
        let (mut good, mut bad) = (0, limit);
        let mut skipped: BTreeSet<usize> = BTreeSet::new();
        while let Some(middle) = middle(good, bad, &skipped) {
            let applied = certain.iter().copied().chain(0..middle).collect();
            match test(&applied).await? {
                StepOutcome::Bad => bad = middle,
                StepOutcome::Good => good = middle,
                StepOutcome::Skipped if needs_more => good = middle,
                StepOutcome::Skipped => {
                    skipped.insert(middle);
                }
            }
        }
        if bad - good > 1 {
            return Ok(SearchResult::Ambiguous { certain, candidates: (good..bad).collect() });
        }
        limit = bad - 1;
        certain.insert(limit);
        if limit > 0 {
            match test(&certain).await? {
                StepOutcome::Bad => break,
                outcome => needs_more = outcome == StepOutcome::Skipped,
            }
        }
    }
    Ok(SearchResult::Found(certain))
}

/// The number between two that is nearest to their middle and was not skipped.
fn middle(good: usize, bad: usize, skipped: &BTreeSet<usize>) -> Option<usize> {
    let middle = good.midpoint(bad);
    (good + 1..bad).filter(|number| !skipped.contains(number)).min_by_key(|number| number.abs_diff(middle))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches, and counts the tests.
    fn searched(count: usize, outcome: impl Fn(&BTreeSet<usize>) -> StepOutcome) -> (SearchResult, usize) {
        let mut steps = 0;
        let mut test = async |applied: &BTreeSet<usize>| {
            steps += 1;
            Ok::<_, ()>(outcome(applied))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(search_changes(count, &mut test)).unwrap();
        (result, steps)
    }

    fn bad_with(cause: &BTreeSet<usize>) -> impl Fn(&BTreeSet<usize>) -> StepOutcome {
        |applied| if applied.is_superset(cause) { StepOutcome::Bad } else { StepOutcome::Good }
    }

    #[test]
    fn one_of_twelve_changes_is_found_in_five_steps() {
        for cause in 0..12 {
            let cause = BTreeSet::from([cause]);
            let (result, steps) = searched(12, bad_with(&cause));
            assert_eq!(result, SearchResult::Found(cause));
            assert!(steps <= 5, "{steps}");
        }
    }

    #[test]
    fn skipped_steps_are_passed_by_or_leave_candidates() {
        let cause = BTreeSet::from([5]);
        let skips = |numbers: &'static [usize]| {
            let cause = cause.clone();
            move |applied: &BTreeSet<usize>| match numbers.contains(&applied.len()) {
                true => StepOutcome::Skipped,
                false => bad_with(&cause)(applied),
            }
        };
        assert_eq!(searched(12, skips(&[7])).0, SearchResult::Found(cause.clone()));
        let candidates = SearchResult::Ambiguous { certain: BTreeSet::new(), candidates: (4..7).collect() };
        assert_eq!(searched(12, skips(&[5, 6])).0, candidates);
    }

    #[test]
    fn a_change_that_does_not_build_alone_is_found_with_what_it_needs() {
        let outcome = |applied: &BTreeSet<usize>| match (applied.contains(&6), applied.contains(&2)) {
            (true, false) => StepOutcome::Skipped,
            (true, true) => StepOutcome::Bad,
            (false, _) => StepOutcome::Good,
        };
        assert_eq!(searched(9, outcome).0, SearchResult::Found(BTreeSet::from([2, 6])));
    }

    proptest! {
        #[test]
        fn any_set_of_changes_is_found(
            count in 1usize..40,
            picks in proptest::collection::btree_set(0usize..40, 1..4),
        ) {
            let cause: BTreeSet<usize> = picks.into_iter().map(|pick| pick % count).collect();
            let (result, steps) = searched(count, bad_with(&cause));
            prop_assert!(steps <= cause.len() * 7, "{}", steps);
            prop_assert_eq!(result, SearchResult::Found(cause));
        }
    }
}
