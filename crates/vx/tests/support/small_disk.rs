//! File systems of a fixed size in memory, for tests of full disks.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::sandbox::skip;

/// A mounted file system of fixed size.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with the reason printed, if this user can't mount.
    pub fn mount(test: &str, at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let at = at.canonicalize().unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size},nr_inodes=0"), "tmpfs"], &at);
        match mounted {
            Ok(()) => Some(Self(at)),
            Err(why) => {
                skip(test, &why);
                None
            }
        }
    }

    pub fn resize(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.0).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Unmount before the parent directory is removed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(arguments).arg(at).output().map_err(|error| error.to_string())?;
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("no disk can be mounted: {message}")) }
}
