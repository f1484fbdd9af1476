//! The user that builds run as.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, lchown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::unistd::{Uid, User};

use super::environment::OWN_DIRECTORIES;

/// An error of the user that builds are to run as. `user` is the requested one, `help` what to do.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are described once, above")]
pub enum JobUserError {
    /// Root without a choice.
    #[error(
        "builds would run as root, which can read every file of this machine; name a user for them \
         with --job-user, such as nobody, or run the service as an ordinary user"
    )]
    Root,
    /// The system doesn't know the user.
    #[error("there is no user `{0}`; create it, or give --job-user a numeric user id")]
    Unknown(String),
    /// The user can't run vx, or can't reach the data directory.
    #[error("failed to start a build process as user `{user}`: {error}; {help}")]
    Denied { user: String, error: io::Error, help: String },
}

/// The user of jobs, if it is not that of the service.
#[derive(Debug, Clone)]
pub(super) struct JobUser {
    name: String,
    id: u32,
    group: u32,
}

impl JobUser {
    /// The user that a service needs for its builds: `None` for an ordinary user, and for root that is named explicitly.
    pub(super) fn select(requested: Option<&str>) -> Result<Option<Self>, JobUserError> {
        if !Uid::effective().is_root() {
            if let Some(name) = requested {
                let own = Uid::effective();
                let has_name = || User::from_uid(own).ok().flatten().is_some_and(|user| user.name == name);
                if name.parse() != Ok(own.as_raw()) && !has_name() {
                    tracing::warn!(
                        "builds run as the user of this service, not as `{name}`: only root can change it"
                    );
                }
            }
            return Ok(None);
        }
        let name = requested.ok_or(JobUserError::Root)?;
        let unknown = || JobUserError::Unknown(name.to_owned());
        let (id, group) = match name.parse::<u32>() {
            // A container image may have no names.
            Ok(id) => match User::from_uid(Uid::from_raw(id)).ok().flatten() {
                Some(user) => (id, user.gid.as_raw()),
                None => (id, id),
            },
            Err(_) => {
                let user = User::from_name(name).ok().flatten().ok_or_else(unknown)?;
                (user.uid.as_raw(), user.gid.as_raw())
            }
        };
        if id == 0 {
            tracing::warn!(
                "builds run as root, as requested: only Landlock and seccomp separate them from this machine"
            );
            return Ok(None);
        }
        Ok(Some(Self { name: name.to_owned(), id, group }))
    }

    /// Makes the job's user the owner of the directories that jobs write to, and lets it reach them. Caches of another
    /// user are removed.
    pub(super) fn prepare(&self, data: &Path) -> io::Result<()> {
        for directory in OWN_DIRECTORIES {
            let directory = data.join(directory);
            if fs::symlink_metadata(&directory)?.uid() != self.id {
                velox_gomod::modzip::remove_all(&directory).map_err(io::Error::other)?;
                fs::create_dir(&directory)?;
                self.own(&directory)?;
            }
        }
        // To pass through, not to list.
        for directory in [data, &data.join("jobs")] {
            let mode = fs::metadata(directory)?.permissions().mode();
            fs::set_permissions(directory, fs::Permissions::from_mode(mode & 0o7777 | 0o011))?;
        }
        Ok(())
    }

    /// Makes the job's user the owner of a file or a directory.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        lchown(path, Some(self.id), Some(self.group))
    }

    /// Runs a command as this user, without the groups of root.
    pub(super) fn apply(&self, command: &mut tokio::process::Command) {
        command.uid(self.id).gid(self.group);
    }

    /// Starts a process as this user in a directory of jobs, which ends at once.
    pub(super) fn probe(&self, program: &Path, jobs: &Path) -> Result<(), JobUserError> {
        let mut command = Command::new(program);
        command.arg("job").current_dir(jobs).env_clear().uid(self.id).gid(self.group);
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        streams.status().map(drop).map_err(|error| {
            let help = match error.kind() {
                // Of execve and chdir; setuid has EPERM.
                io::ErrorKind::PermissionDenied if error.raw_os_error() == Some(rustix::io::Errno::ACCESS.raw_os_error()) => {
                    format!("it must be able to reach {} and {}", program.display(), jobs.display())
                }
                _ => "root needs the capabilities SETUID and SETGID; without them, run the service as an ordinary user"
                    .to_owned(),
            };
            JobUserError::Denied { user: self.name.clone(), error, help }
        })
    }
}
