//! The program: arguments, logging, exit codes.

use std::io::{IsTerminal, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use weir::cli::ctl;
use weir::config::{Config, Problems, Unusable, lifetime};
use weir::gate::Action;
use weir::media::{self, Catalog, Verdict};
use weir::name::StreamName;
use weir::server::{PORTS, Server};
use weir::systemd;

/// Most threads for what blocks: files, and pipelines that are parsed, started or stopped. They exist while they are
/// needed. Pipelines in good health never need more than a few of them at once (`media` sees to that); the others are
/// for those that hang in GStreamer, which nothing brings back.
const BLOCKING_THREADS: usize = 512;

/// How long GStreamer's objects may take to go once the server has stopped, where they are counted.
const LEFT: Duration = Duration::from_secs(3);

/// What is logged where `WEIR_LOG` does not say. The SSH library calls what strangers send it errors; weir says itself
/// what an operator has to know. The MP4 library warns of boxes that it leaves out.
const LOG: &str = "info,russh=off,mp4_atom=error";

/// A media server that builds one GStreamer pipeline per job, driven by a REST API.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the server until SIGTERM or SIGINT.
    Serve(Serve),
    /// Prints the command that runs a launch template in a shell.
    Line {
        /// The template's name, for example pull-rtmp.
        template: String,
        /// What fills its holes, for example uri=rtmp://host/live/a.
        #[arg(value_name = "KEY=VALUE")]
        values: Vec<String>,
        /// Folder whose files replace launch templates of the same name.
        #[arg(long, value_name = "DIR", env = "WEIR_PIPELINES")]
        pipelines: Option<PathBuf>,
    },
    /// Parses every launch template and names what the installation lacks.
    Check {
        /// Folder whose files replace launch templates of the same name.
        #[arg(long, value_name = "DIR", env = "WEIR_PIPELINES")]
        pipelines: Option<PathBuf>,
    },
    /// Prints a page for people or programs that is made from this program.
    Print {
        /// Which.
        page: Page,
    },
    /// Controls the server that runs with this data directory: the command line of WCS.
    Ctl(Ctl),
    /// Prints a token that opens a stream, signed with stream_token_secret.
    Token(Token),
    /// Asks the server that runs with this data directory whether it lives.
    Health {
        /// The server's data directory.
        #[arg(long, value_name = "DIR", default_value = "data", env = "WEIR_DATA")]
        data: PathBuf,
        /// The address it listens on, where ip_local is a single one.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
        ip: IpAddr,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Page {
    /// Every setting, in Markdown.
    Settings,
    /// What REST takes and gives, as OpenAPI 3.1.
    Openapi,
}

#[derive(Args)]
struct Serve {
    /// Settings file; a flashphoner.properties of WCS works as it is.
    #[arg(long, value_name = "FILE", env = "WEIR_CONF")]
    conf: Option<PathBuf>,
    /// One setting, for example record_rotation=20. Stronger than file and environment.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What the server keeps for itself.
    #[arg(long, value_name = "DIR", default_value = "data", env = "WEIR_DATA")]
    data: PathBuf,
    /// Folder whose files replace launch templates of the same name.
    #[arg(long, value_name = "DIR", env = "WEIR_PIPELINES")]
    pipelines: Option<PathBuf>,
    /// How the log is written to stderr.
    #[arg(long, value_enum, default_value = "human", env = "WEIR_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Args)]
struct Token {
    /// The stream's name; a URL for who plays it by its address.
    name: String,
    /// What the token is for.
    #[arg(value_enum)]
    action: TokenAction,
    /// How long it holds: seconds, or a number with m, h or d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    expires: Duration,
    /// Settings file with the secret.
    #[arg(long, value_name = "FILE", env = "WEIR_CONF")]
    conf: Option<PathBuf>,
    /// One setting. The secret is better kept in the file, or in WEIR_STREAM_TOKEN_SECRET.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum TokenAction {
    Publish,
    Play,
}

#[derive(Args)]
struct Ctl {
    /// The server's data directory.
    #[arg(long, value_name = "DIR", default_value = "data", env = "WEIR_DATA")]
    data: PathBuf,
    /// Asks for one command after another, with editing, history and completion.
    #[arg(short, long)]
    interactive: bool,
    /// The command: "help" lists them. Without one they are read from the standard input.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// A line for people.
    Human,
    /// A JSON object a line.
    Json,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Serve(options) => serve(&options),
        Verb::Line { template, values, pipelines } => line(&template, &values, pipelines.as_deref()),
        Verb::Check { pipelines } => check(pipelines.as_deref()),
        Verb::Token(options) => token(&options),
        Verb::Print { page } => print(page),
        Verb::Health { data, ip } => health(&data, ip),
        Verb::Ctl(options) => return control(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error:#}");
            // What the operator gave cannot be used, and trying again is of no use: 2. Everything else: 1.
            ExitCode::from(if error.is::<Problems>() || error.is::<Unusable>() { 2 } else { 1 })
        }
    }
}

fn serve(options: &Serve) -> Result<()> {
    start_log(options.log_format)?;
    let loaded = Config::load(options.conf.as_deref(), environment(), &options.set)?;
    if !loaded.unknown.is_empty() {
        tracing::warn!("settings that weir does not know have no effect: {}", loaded.unknown.join(", "));
    }
    if let Some(descriptors) = weir::admission::raise_descriptors() {
        tracing::debug!("up to {descriptors} descriptors may be open");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build()?;
    let complete = runtime.block_on(async {
        tokio::select! {
            complete = run(loaded.config, options) => complete,
            never = systemd::beat() => match never {},
        }
    })?;
    // Threads that hang in GStreamer end with the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    tell_of_leaks();
    if !complete {
        bail!("the shutdown was not complete within shutdown_timeout");
    }
    Ok(())
}

/// With GST_TRACERS=leaks: what of GStreamer outlives the server, which nothing should.
fn tell_of_leaks() {
    let Some(alive) = media::live_objects(LEFT) else { return };
    match alive.is_empty() {
        true => tracing::info!("leaks: no GStreamer object is alive"),
        false => alive.iter().for_each(|(what, count)| tracing::warn!(count, "leaks: {what} is alive")),
    }
}

async fn run(config: Config, options: &Serve) -> Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let limit = config.shutdown_timeout;
    let server = Server::start(config, &options.data, options.pipelines.as_deref()).await?;
    systemd::ready(&format!("REST on {}", server.http()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    systemd::stopping(limit);
    Ok(server.stop().await)
}

/// The exit code is that of the command: 0 done, 1 not, 2 where the line was wrong.
fn control(options: &Ctl) -> ExitCode {
    let code = match options.command.as_slice() {
        [] => ctl::many(&options.data, options.interactive),
        words => ctl::one(&options.data, words),
    };
    code.map_or_else(
        |error| {
            eprintln!("weir: {error}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}

fn start_log(format: LogFormat) -> Result<()> {
    let filter = EnvFilter::builder()
        .with_env_var("WEIR_LOG")
        .with_default_directive(tracing::Level::INFO.into())
        .try_from_env()
        .or_else(|_| EnvFilter::try_new(LOG))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let started = match format {
        LogFormat::Human => log.with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot start: {error}"))
}

fn line(template: &str, values: &[String], overrides: Option<&Path>) -> Result<()> {
    let mut pairs = Vec::new();
    for pair in values {
        let (key, value) = pair.split_once('=').with_context(|| format!("{pair} is not key=value"))?;
        pairs.push((key.to_owned(), value.to_owned()));
    }
    let launch = Catalog::load(overrides)?.line(template, &pairs)?;
    println!("{}", launch.shell(|_| true));
    Ok(())
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

fn token(options: &Token) -> Result<()> {
    let config = Config::load(options.conf.as_deref(), environment(), &options.set)?.config;
    let name = StreamName::new(&options.name)?;
    let secret = config.gate.token_secret.context("no stream_token_secret is set (--conf, or the environment)")?;
    let action = match options.action {
        TokenAction::Publish => Action::Publish,
        TokenAction::Play => Action::Play,
    };
    let expires = SystemTime::now() + options.expires;
    println!("{}", weir::gate::token::sign(secret.reveal(), action, name.as_str(), expires));
    Ok(())
}

fn check(overrides: Option<&Path>) -> Result<()> {
    media::init().map_err(anyhow::Error::msg)?;
    println!("{}", media::version());
    let mut problems = 0;
    for (name, verdict) in Catalog::load(overrides)?.check() {
        match verdict {
            Verdict::Works => println!("{name}: ok"),
            Verdict::Replaced { by, problem } => println!("{name}: {by} is taken instead ({problem})"),
            Verdict::Fails(problem) => {
                problems += 1;
                println!("{problem}");
            }
        }
    }
    if problems > 0 {
        bail!("{problems} of the launch templates cannot run here");
    }
    Ok(())
}

fn print(page: Page) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match page {
        Page::Settings => out.write_all(Config::reference().as_bytes())?,
        Page::Openapi => out.write_all(weir::api::openapi_document())?,
    }
    Ok(())
}

fn health(data: &Path, ip: IpAddr) -> Result<()> {
    let file = data.join(PORTS);
    let text = std::fs::read_to_string(&file).with_context(|| format!("no server: cannot read {}", file.display()))?;
    let ports: serde_json::Value = serde_json::from_str(&text)?;
    let port = ports["http.port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = port.with_context(|| format!("{} names no http.port", file.display()))?;
    let limit = Duration::from_secs(3);
    let address = SocketAddr::new(ip, port);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("the server answers {}", answer.lines().next().unwrap_or("nothing"));
    }
    Ok(())
}
