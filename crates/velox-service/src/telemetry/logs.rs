//! The log of the process, and where its traces go.

use std::{collections::BTreeMap, io, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// How long the last spans may take on their way.
const LAST: Duration = Duration::from_secs(5);

/// How the process tells what goes on.
#[derive(Debug, Clone)]
pub struct LogsOptions {
    /// What traces call the process, unless `OTEL_SERVICE_NAME` does.
    pub service: &'static str,
    /// JSON objects instead of lines for people.
    pub json: bool,
    /// Whether stderr takes colours.
    pub color: bool,
    /// How much is told: of this program so much, of others' code only what is of concern.
    pub level: Level,
    /// The process's environment: `OTEL_EXPORTER_OTLP_ENDPOINT` turns traces on, `VX_LOG` says which logs
    /// (<https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html>).
    pub environment: BTreeMap<String, String>,
}

/// The logs and traces of the process, until it ends.
#[derive(Debug)]
pub struct Logs(Option<SdkTracerProvider>);

impl Logs {
    /// From here on all that the service says goes to stderr, and its traces where the environment says.
    ///
    /// # Errors
    /// A sentence on the setting that is wrong.
    pub fn begin(options: &LogsOptions) -> Result<Self, String> {
        let filter = match options.environment.get("VX_LOG").filter(|value| !value.is_empty()) {
            Some(value) => EnvFilter::try_new(value).map_err(|error| format!("VX_LOG: {error}"))?,
            None => {
                let others = options.level.min(Level::WARN);
                EnvFilter::new(format!("{others},velox_service={}", options.level))
            }
        };
        let lines = if options.json {
            fmt::layer().json().flatten_event(true).with_writer(io::stderr).with_filter(filter).boxed()
        } else {
            fmt::layer()
                .compact()
                .with_target(false)
                .with_ansi(options.color)
                .with_writer(io::stderr)
                .with_filter(filter)
                .boxed()
        };
        let provider = traces(options.service, &options.environment)?;
        let spans = provider.as_ref().map(|provider| {
            global::set_text_map_propagator(TraceContextPropagator::new());
            global::set_tracer_provider(provider.clone());
            let only = Targets::new().with_target("velox_service", Level::INFO);
            tracing_opentelemetry::layer().with_tracer(provider.tracer("vx")).with_filter(only)
        });
        tracing_subscriber::registry()
            .with(spans)
            .with(lines)
            .try_init()
            .map_err(|error| format!("the log can't be set up: {error}"))?;
        Ok(Self(provider))
    }

    /// Sends what is left. The log goes on.
    pub async fn end(self) {
        if let Some(provider) = self.0 {
            // It waits for a thread of its own, which waits for this runtime.
            let end = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST));
            if let Ok(Err(error)) = end.await {
                tracing::warn!(%error, "the last traces didn't arrive");
            }
        }
    }
}

/// Where the environment says that traces go (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
fn traces(
    service: &'static str,
    environment: &BTreeMap<String, String>,
) -> Result<Option<SdkTracerProvider>, String> {
    let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    let disabled = environment.get("OTEL_SDK_DISABLED").is_some_and(|value| value == "true");
    if disabled || !(set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) {
        return Ok(None);
    }
    let wrong = |error: &dyn std::fmt::Display| format!("traces can't be sent: {error}");
    let client = velox_build::http_client(environment).map_err(|error| wrong(&error))?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(OnRuntime { client, runtime: Handle::current() })
        .build()
        .map_err(|error| wrong(&error))?;
    let mut resource = Resource::builder();
    if !set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(service);
    }
    Ok(Some(
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build(),
    ))
}

/// A client for the exporter's own thread, which has no runtime.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { HttpClient::send_bytes(&client, request).await }).await?
    }
}
