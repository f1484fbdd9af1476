//! Logging and trace export of the process.

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

/// The timeout for exporting the last spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The options of [`Logging`].
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The service name in traces, unless `OTEL_SERVICE_NAME` is set.
    pub service: &'static str,
    /// Whether to write JSON objects instead of text.
    pub json: bool,
    /// Whether to color the text.
    pub color: bool,
    /// The level of this program's messages; other crates log only warnings and errors.
    pub level: Level,
    /// The environment: `OTEL_EXPORTER_OTLP_ENDPOINT` enables traces, `VX_LOG` is a filter
    /// (<https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/struct.EnvFilter.html>).
    pub environment: BTreeMap<String, String>,
}

/// The logging and tracing of the process.
#[derive(Debug)]
pub struct Logging(Option<SdkTracerProvider>);

impl Logging {
    /// Starts logging to stderr, and the export of traces if configured.
    ///
    /// # Errors
    /// A setting is invalid.
    pub fn start(options: &LogOptions) -> Result<Self, String> {
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
        let provider = trace_provider(options.service, &options.environment)?;
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
            .map_err(|error| format!("failed to set up logging: {error}"))?;
        Ok(Self(provider))
    }

    /// Exports the remaining spans. Logging continues.
    pub async fn finish(self) {
        if let Some(provider) = self.0 {
            // Not blocking: the exporter's thread needs this runtime.
            let end = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(EXPORT_TIMEOUT));
            if let Ok(Err(error)) = end.await {
                tracing::warn!(%error, "failed to export the last traces");
            }
        }
    }
}

/// The exporter set in the environment (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
fn trace_provider(
    service: &'static str,
    environment: &BTreeMap<String, String>,
) -> Result<Option<SdkTracerProvider>, String> {
    let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    let disabled = environment.get("OTEL_SDK_DISABLED").is_some_and(|value| value == "true");
    if disabled || !(set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) {
        return Ok(None);
    }
    let failed = |error: &dyn std::fmt::Display| format!("failed to set up the export of traces: {error}");
    let client = velox_build::http_client(environment).map_err(|error| failed(&error))?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(RuntimeClient { client, runtime: Handle::current() })
        .build()
        .map_err(|error| failed(&error))?;
    let mut resource = Resource::builder();
    if !set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(service);
    }
    Ok(Some(
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build(),
    ))
}

/// An HTTP client for the exporter's thread, which has no runtime.
#[derive(Debug)]
struct RuntimeClient {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for RuntimeClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { HttpClient::send_bytes(&client, request).await }).await?
    }
}
