//! Object lock: asked for in the writing request, and never believed without a proof.

use std::error::Error as _;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockEnabled, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use jiff::Timestamp;

use super::S3Store;
use super::classify::classify;
use crate::error::{Error, ErrorKind, Result};
use crate::key::ObjectKey;
use crate::settings::LockMode;
use crate::store::{ObjectRef, PutOptions, Versions as _, lasts_until};

/// What the bucket said when it was asked whether it can lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockState {
    /// It can.
    Enabled,
    /// It cannot, or does not know what that is.
    Absent,
    /// We may not ask; whether an object is locked is looked at in any case.
    Secret,
}

/// A lock as a writing request carries it.
pub(super) struct Lock {
    pub(super) mode: ObjectLockMode,
    pub(super) until: DateTime,
}

/// What a bucket that cannot lock says to an object that is to be locked makes little sense; this says what it means.
pub(super) fn refused(mut error: Error, options: &PutOptions) -> Error {
    if options.locked_until.is_none() || error.kind != ErrorKind::Protocol {
        return error;
    }
    let said = error.source().map(ToString::to_string).unwrap_or_default();
    let why =
        format!("it was to be locked, and that was not understood; was the bucket made with object lock? ({said})");
    error.kind = ErrorKind::Unsupported;
    error.because(why)
}

impl S3Store {
    pub(super) fn lock(&self, until: Timestamp) -> Lock {
        let mode = match self.settings.lock_mode {
            LockMode::Governance => ObjectLockMode::Governance,
            LockMode::Compliance => ObjectLockMode::Compliance,
        };
        Lock { mode, until: DateTime::from_secs(until.as_second()) }
    }

    /// Fails unless the bucket can lock, as far as we may know.
    pub(super) async fn refuse_without_lock(&self, operation: &'static str, key: &ObjectKey) -> Result<()> {
        if !self.seen.locks {
            let why = "what was locked there could be deleted all the same when it was probed";
            return Err(self.error(ErrorKind::Unsupported, operation).key(key).because(why));
        }
        match self.lock_state().await? {
            LockState::Enabled | LockState::Secret => Ok(()),
            LockState::Absent => {
                let why = "the bucket has no object lock, so that nothing would keep the object from being deleted";
                Err(self.error(ErrorKind::Unsupported, operation).key(key).because(why))
            }
        }
    }

    /// Proves the lock of an object that was put together from parts, or copied: some servers forget it on the way, and are
    /// told again.
    pub(super) async fn assure_locked(
        &self,
        operation: &'static str,
        object: &ObjectRef,
        until: Timestamp,
    ) -> Result<()> {
        if self.prove_locked(operation, object, until).await.is_ok() {
            return Ok(());
        }
        let mode = match self.settings.lock_mode {
            LockMode::Governance => ObjectLockRetentionMode::Governance,
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(self.lock(until).until).build();
        let request = self.client().await.put_object_retention().bucket(self.bucket()).key(self.full(&object.key));
        let sent = request.set_version_id(object.version.clone()).retention(retention).send().await;
        sent.map_err(|cause| self.failed("locking", &object.key, cause))?;
        self.prove_locked(operation, object, until).await
    }

    /// Fails unless the store says of this very version that it is locked until then or longer.
    pub(super) async fn prove_locked(
        &self,
        operation: &'static str,
        object: &ObjectRef,
        until: Timestamp,
    ) -> Result<()> {
        if lasts_until(self.locked_until(object).await?, until) {
            return Ok(());
        }
        let error = self.error(ErrorKind::Unsupported, operation).key(&object.key);
        Err(error.because("the store took the object and did not lock it"))
    }

    async fn lock_state(&self) -> Result<LockState> {
        self.lock_state.get_or_try_init(|| self.ask_lock_state()).await.copied()
    }

    async fn ask_lock_state(&self) -> Result<LockState> {
        let asked = self.client().await.get_object_lock_configuration().bucket(self.bucket()).send().await;
        match asked {
            Ok(reply) => {
                let said = reply.object_lock_configuration().and_then(|lock| lock.object_lock_enabled());
                Ok(if said == Some(&ObjectLockEnabled::Enabled) { LockState::Enabled } else { LockState::Absent })
            }
            Err(cause) => {
                let error = classify("asking about object lock", cause).store(self);
                match error.kind {
                    ErrorKind::Denied => Ok(LockState::Secret),
                    ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::Protocol => Ok(LockState::Absent),
                    _ => Err(error),
                }
            }
        }
    }
}
