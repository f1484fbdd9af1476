use std::path::Path;

use velox_build::{ArtifactStore, Error, SbomFormat, cache_directory};

use crate::{
    cli::query::SbomCommand,
    commands::session::{Session, working_directory},
    report,
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn sbom(settings: Settings, arguments: SbomCommand) -> CommandResult {
    let SbomCommand { binary, document, output, project } = arguments;
    let format = document.into();
    let directory = working_directory()?;
    let document = match binary {
        Some(binary) => of_binary(&settings, &directory.join(binary), format)
            .map_err(|error| report::failed(&settings, &error))?,
        None => {
            let session = Session::open(settings.clone(), project)?;
            of_configuration(&session, format).await.map_err(|error| session.failed(&error))?
        }
    };
    match output {
        None => report::print(&document),
        Some(file) => {
            let file = directory.join(file);
            let written = velox_build::write_text(&file, &document);
            written.map_err(|error| report::failed(&settings, &Error::file("write", &file, &error)))
        }
    }
}

/// The document that the build of this binary kept in the artifact store.
fn of_binary(settings: &Settings, binary: &Path, format: SbomFormat) -> Result<String, Error> {
    let store = ArtifactStore::new(&cache_directory(&settings.environment));
    let document = store.sbom(binary, format)?.ok_or_else(|| {
        Error::build(format!("found no bill of materials of {}", binary.display()))
            .help("only the machine that built a binary keeps one, as long as the binary is in its cache")
            .help("run `vx sbom` beside its velox.toml and velox.lock, or build it again with `vx build --sbom`")
    })?;
    String::from_utf8(document)
        .map_err(|_| Error::build("the cached bill of materials is damaged").help("run `vx cache clear`"))
}

async fn of_configuration(session: &Session, format: SbomFormat) -> Result<String, Error> {
    if session.request.options.compile.targets.len() > 1 {
        return Err(one_target());
    }
    match session.query()?.sboms().await?.as_slice() {
        [sbom] => Ok(sbom.render(format)),
        _ => Err(one_target()),
    }
}

fn one_target() -> Error {
    Error::configuration("a bill of materials is about one binary, but there are several targets")
        .help("choose one with --target OS/ARCH, or write all of them with `vx build --sbom`")
}
