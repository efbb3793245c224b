//! Waiting for something to become true, with an end.

use std::time::Duration;

use anyhow::{Result, bail};

/// Longest wait for anything: generous, because a loaded machine of two cores runs Envoy and compilers beside it.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` finds something.
///
/// # Errors
/// After [`LIMIT`], naming `what`; or with the error of `look`.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let mut left = LIMIT.as_millis() / PAUSE.as_millis();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if left == 0 {
            bail!("waited {LIMIT:?} in vain for {what}");
        }
        left -= 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ends a future that takes longer than [`LIMIT`].
///
/// # Errors
/// After [`LIMIT`], naming `what`.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => Ok(value),
        Err(_) => bail!("waited {LIMIT:?} in vain for {what}"),
    }
}
