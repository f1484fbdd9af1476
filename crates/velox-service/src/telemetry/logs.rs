//! Logging and trace export of the process.

use std::{collections::BTreeMap, io, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    Layer as _,
    field::RecordFields,
    filter::Targets,
    fmt::{
        self, FmtContext, FormatFields, FormattedFields,
        format::{FormatEvent, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// The timeout for exporting the last spans.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The options of [`Logging`].
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The service name in traces, unless `OTEL_SERVICE_NAME` is set.
    pub service: &'static str,
    /// The form of a message.
    pub format: LogFormat,
    /// The level of this program's messages; other crates log only warnings and errors.
    pub level: Level,
    /// The environment: `OTEL_EXPORTER_OTLP_ENDPOINT` enables traces, `VX_LOG` is a filter
    /// (<https://docs.rs/tracing-subscriber/latest/tracing_subscriber/filter/targets/struct.Targets.html>).
    pub environment: BTreeMap<String, String>,
}

/// The form of a log message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text with the time and the level.
    Text {
        /// Whether to color it.
        color: bool,
    },
    /// A line of text with neither time nor level.
    Raw,
    /// A JSON object with `time`, `level` and `msg`, as Go's slog writes it, and further fields.
    Json,
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
        let filter: Targets = match options.environment.get("VX_LOG").filter(|value| !value.is_empty()) {
            Some(value) => value.parse().map_err(|error| format!("VX_LOG: {error}"))?,
            None => Targets::new()
                .with_default(options.level.min(Level::WARN))
                .with_target("velox_service", options.level),
        };
        let text = fmt::layer().compact().with_target(false).with_writer(io::stderr);
        let lines = match options.format {
            LogFormat::Text { color } => text.with_ansi(color).with_filter(filter).boxed(),
            LogFormat::Raw => {
                text.with_ansi(false).without_time().with_level(false).with_filter(filter).boxed()
            }
            LogFormat::Json => fmt::layer()
                .fmt_fields(JsonLines)
                .event_format(JsonLines)
                .with_writer(io::stderr)
                .with_filter(filter)
                .boxed(),
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

/// Formats messages as JSON objects, with the fields of their spans.
struct JsonLines;

impl<'writer> FormatFields<'writer> for JsonLines {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        let mut map = FieldMap::default();
        fields.record(&mut map);
        write!(writer, "{}", Value::Object(map.0))
    }

    fn add_fields(
        &self,
        of_span: &'writer mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> std::fmt::Result {
        let mut map = FieldMap(serde_json::from_str(&of_span.fields).map_err(|_| std::fmt::Error)?);
        fields.record(&mut map);
        of_span.fields = Value::Object(map.0).to_string();
        Ok(())
    }
}

impl<S> FormatEvent<S, Self> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Self>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut fields = FieldMap::default();
        event.record(&mut fields);
        let spans = context.event_scope().into_iter().flatten();
        for span in spans {
            if let Some(text) = span.extensions().get::<FormattedFields<Self>>()
                && let Ok(Value::Object(of_span)) = serde_json::from_str(&text.fields)
            {
                of_span.into_iter().for_each(|(name, value)| _ = fields.0.entry(name).or_insert(value));
            }
        }
        let line = JsonLogMessage {
            time: velox_api::now(),
            level: event.metadata().level().as_str(),
            msg: fields.0.remove("message").unwrap_or_default(),
            fields: fields.0,
        };
        let line = serde_json::to_string(&line).map_err(|_| std::fmt::Error)?;
        writeln!(writer, "{}", velox_build::render::escape_json(line))
    }
}

#[derive(Serialize)]
struct JsonLogMessage<'a> {
    time: Timestamp,
    level: &'a str,
    msg: Value,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// The fields of a message as JSON.
#[derive(Default)]
struct FieldMap(Map<String, Value>);

impl FieldMap {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for FieldMap {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.insert(field, format!("{value:?}"));
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
