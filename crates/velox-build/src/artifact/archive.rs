//! Release archives, named as RoadRunner's own.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use velox_manifest::GoTarget;

use crate::{
    artifact::{publish::write_whole, store::StoredArtifact},
    atomic_file::FileMode,
    digest,
    error::Error,
    event::BuiltBinary,
};

/// Writes `NAME.tar.gz` (`NAME.zip` for Windows) with the binary and RoadRunner's license in a directory
/// NAME, without time stamps and owners, for reproducible archives. The name is `roadrunner-2025.1.15-linux-amd64`, as at
/// <https://github.com/roadrunner-server/roadrunner/releases>.
pub(crate) fn write(
    version: &str,
    target: &GoTarget,
    artifact: &StoredArtifact,
    directory: &Path,
) -> Result<PathBuf, Error> {
    let is_usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    let version = version.replace(|c| !is_usual(c), "_");
    let name = format!("roadrunner-{version}-{}-{}", target.os, target.arch);
    let windows = target.os == "windows";
    let file = directory.join(format!("{name}{}", if windows { ".zip" } else { ".tar.gz" }));
    write_whole(&file, FileMode::Data, &mut |out| {
        if windows { zip(&name, artifact, out) } else { tar_gz(&name, artifact, out) }
    })?;
    Ok(file)
}

fn tar_gz(name: &str, artifact: &StoredArtifact, out: &mut File) -> io::Result<()> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(out, flate2::Compression::default()));
    let header = |size: u64, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(mode);
        header
    };
    let binary = File::open(artifact.binary())?;
    tar.append_data(&mut header(artifact.size, 0o755), format!("{name}/rr"), binary)?;
    if let Some(license) = artifact.license() {
        tar.append_data(&mut header(license.len() as u64, 0o644), format!("{name}/LICENSE"), &*license)?;
    }
    tar.into_inner()?.finish()?;
    Ok(())
}

fn zip(name: &str, artifact: &StoredArtifact, out: &mut File) -> io::Result<()> {
    let mut zip = zip::ZipWriter::new(out);
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .last_modified_time(zip::DateTime::default());
    zip.start_file(format!("{name}/rr.exe"), options.unix_permissions(0o755))?;
    io::copy(&mut File::open(artifact.binary())?, &mut zip)?;
    if let Some(license) = artifact.license() {
        zip.start_file(format!("{name}/LICENSE"), options.unix_permissions(0o644))?;
        zip.write_all(&license)?;
    }
    zip.finish()?;
    Ok(())
}

/// Writes `checksums.txt` beside the archives, in the format of `sha256sum`.
pub(crate) fn write_checksums(published: &[BuiltBinary]) -> Result<(), Error> {
    let archives: Vec<&PathBuf> = published.iter().filter_map(|binary| binary.archive.as_ref()).collect();
    let Some(directory) = archives.first().and_then(|first| first.parent()) else { return Ok(()) };
    let mut lines = Vec::new();
    for archive in &archives {
        let (_, sha256) = digest::of_file(archive).map_err(|error| Error::file("read", archive, &error))?;
        let name = archive.file_name().unwrap_or_default().to_string_lossy();
        lines.push(format!("{sha256}  {name}\n"));
    }
    let file = directory.join("checksums.txt");
    write_whole(&file, FileMode::Data, &mut |out| out.write_all(lines.concat().as_bytes()))
}
