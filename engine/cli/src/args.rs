//! The command line: a table of commands and options. Longer than other files for that reason.
//!
//! Says how words are taken apart, not what they lead to.

#![expect(missing_docs, reason = "what clap shows as help is the documentation")]

mod look;

pub use look::{CatArgs, DiffArgs, LsArgs, VerifyArgs};

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sarus_oci::Platform;

/// OCI container engine for HPC
#[derive(Debug, Parser)]
#[command(
    name = "sarus",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = false
)]
pub struct Arguments {
    #[command(flatten)]
    pub verbosity: Verbosity,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Verbosity {
    /// Say on standard error what is done
    #[arg(long, global = true)]
    pub verbose: bool,
    /// Say on standard error what is done, in every detail
    #[arg(long, global = true)]
    pub debug: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Get an image from a registry
    Pull(PullArgs),
    /// Get images from an archive, a directory or an image file
    Load(LoadArgs),
    /// Run a command in a new container
    Run(Box<RunArgs>),
    /// List your running containers on this node
    Ps(PsArgs),
    /// Send a signal to running containers
    Kill(KillArgs),
    /// Run one more command in a running container
    Exec(ExecArgs),
    /// List the images
    Images(ImagesArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Free what is not needed: cached layers, leftovers, images without a name
    Prune(PruneArgs),
    /// Show all that is known of images, as JSON
    Inspect(InspectArgs),
    /// List what is in an image, without running it
    Ls(LsArgs),
    /// Print files of an image, without running it
    Cat(CatArgs),
    /// List what is added, changed and deleted from one image to another
    Diff(DiffArgs),
    /// Check that images are as they were stored
    Verify(VerifyArgs),
    /// Write an image to a squashfs file, with the owners that it has in the registry
    Export(ExportArgs),
    /// List the hooks, and whether each would run
    Hooks(HooksArgs),
    /// Make the keys by which your containers reach each other (`sarus run --ssh`)
    SshKeygen(SshKeygenArgs),
    /// Store credentials for a registry
    Login(LoginArgs),
    /// Remove the credentials for a registry
    Logout(LogoutArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Show the version
    Version(VersionArgs),
    /// Unpack an image file to a directory
    #[command(hide = true)]
    UnpackImage(UnpackArgs),
}

#[derive(Debug, Clone, Copy, Args)]
pub struct SshKeygenArgs {
    /// Replace the keys that there are
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Debug, Args)]
pub struct PullArgs {
    /// The image: [REGISTRY/]REPOSITORY[:TAG][@DIGEST], or one that no registry has, as `sarus
    /// load` takes it: docker-archive:FILE[:NAME], oci-archive:FILE[:TAG], oci:DIR[:TAG],
    /// containers-storage:NAME
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    #[command(flatten)]
    pub credentials: CredentialArgs,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Print the digest only
    #[arg(short, long)]
    pub quiet: bool,
    /// Report where the time went: a table on standard error, or one JSON object on standard output
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub timing: Option<ReportFormat>,
    /// Accepted for Sarus 1's sake: the conversion needs no space besides the image's
    #[arg(long, value_name = "DIR")]
    pub temp_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    override_usage = "sarus load [OPTIONS] [FILE [NAME]]\n       sarus load [OPTIONS] --input FILE [NAME]"
)]
pub struct LoadArgs {
    /// What to load, and what to call it: an archive of `docker save` or `podman save`, a tar
    /// archive of a root file system (each also compressed with gzip or zstd), a directory with an
    /// OCI layout, a SIF or squashfs file, `-` or nothing for standard input; or one image of it:
    /// docker-archive:FILE[:NAME], oci-archive:FILE[:TAG], oci:DIR[:TAG], containers-storage:NAME
    #[arg(value_name = "FILE [NAME]", num_args = 0..)]
    pub words: Vec<OsString>,
    /// The file, as with Docker and Podman
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// What the file is, where its content does not tell: docker-archive, oci-archive, oci,
    /// rootfs-tar, squashfs or sif
    #[arg(long, alias = "source-format", value_name = "FORMAT", value_parser = clap::builder::ValueParser::new(|text: &str| text.parse::<sarus_image::Format>()))]
    pub format: Option<sarus_image::Format>,
    /// Print the digests only
    #[arg(short, long)]
    pub quiet: bool,
    /// Report where the time went: a table on standard error, or one JSON object for each image
    /// on standard output
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub timing: Option<ReportFormat>,
    /// Directory of this node for an archive that comes compressed or through a pipe, which is
    /// kept there, without a name, until it is loaded
    #[arg(long, value_name = "DIR")]
    pub temp_dir: Option<PathBuf>,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Debug, Clone, Default, Args)]
pub struct CredentialArgs {
    /// User name at the registry; the password is asked for, or see --password-stdin
    #[arg(short, long, value_name = "USER")]
    pub username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username", conflicts_with = "login")]
    pub password_stdin: bool,
    /// Ask for user name and password; without a terminal, read them as two lines
    #[arg(long)]
    pub login: bool,
}

#[derive(Debug, Clone, Default, Args)]
pub struct PlaceArgs {
    /// Use the site's store instead of your own
    #[arg(long)]
    pub centralized_repository: bool,
    /// The platform instead of this machine's: OS/ARCHITECTURE[/VARIANT]
    #[arg(long, value_name = "PLATFORM", value_parser = Platform::parse)]
    pub platform: Option<Platform>,
}

impl PlaceArgs {
    /// The platform asked for, else this machine's.
    pub fn platform(&self) -> Platform {
        self.platform.clone().unwrap_or_else(Platform::host)
    }
}

#[derive(Debug, Args)]
#[command(override_usage = "sarus run [OPTIONS] IMAGE [COMMAND [ARGUMENT...]]")]
pub struct RunArgs {
    /// Image (a reference, an id, or the path of a squashfs or SIF file), command and its arguments; options
    /// end at the image
    #[arg(value_name = "IMAGE", required = true, num_args = 1.., trailing_var_arg = true)]
    pub words: Vec<OsString>,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub environment: EnvironmentArgs,
    #[command(flatten)]
    pub mounts: MountArgs,
    #[command(flatten)]
    pub process: ProcessArgs,
    #[command(flatten)]
    pub container: ContainerArgs,
    #[command(flatten)]
    pub hooks: HookArgs,
    /// When to pull the image
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Pull::Missing)]
    pub pull: Pull,
    /// Run nothing: print every mount, device, variable, hook and namespace with who asks for it
    /// and why; the image must be in the store
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub explain: Option<ReportFormat>,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// Print the ids only
    #[arg(short, long, conflicts_with = "format")]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct KillArgs {
    /// Containers: their ids or names, as `sarus ps` shows them
    #[arg(value_name = "CONTAINER", required = true)]
    pub ids: Vec<String>,
    /// The signal: name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
}

#[derive(Debug, Args)]
#[command(override_usage = "sarus exec [OPTIONS] CONTAINER COMMAND [ARGUMENT...]")]
pub struct ExecArgs {
    /// Container (its id or name), command and its arguments; options end at the container
    #[arg(value_name = "CONTAINER", required = true, num_args = 1.., trailing_var_arg = true)]
    pub words: Vec<OsString>,
    #[command(flatten)]
    pub environment: EnvironmentArgs,
    /// Directory in which the command starts, absolute; without it the container's
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// Give the command a terminal of its own
    #[arg(short, long)]
    pub tty: bool,
    /// Accepted for Docker's sake: standard input is always passed on
    #[arg(short, long)]
    pub interactive: bool,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Environment")]
pub struct EnvironmentArgs {
    /// Set a variable; without a value, take the host's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Set the variables in a file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Mounts and devices")]
pub struct MountArgs {
    /// Mount something: type=bind,source=PATH,destination=PATH[,readonly] or
    /// type=tmpfs,destination=PATH[,tmpfs-size=SIZE][,tmpfs-mode=MODE]
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub mount: Vec<OsString>,
    /// Mount a file or directory of the host
    #[arg(short, long, value_name = "SOURCE:DESTINATION[:ro]")]
    pub volume: Vec<OsString>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "DESTINATION[:size=SIZE,mode=MODE,noexec]")]
    pub tmpfs: Vec<OsString>,
    /// Give access to a device of the host, or to a CDI device (vendor.com/class=name)
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]|CDI")]
    pub device: Vec<OsString>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// Program instead of the image's entrypoint, without its default arguments; empty: none
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<OsString>,
    /// Directory in which the command starts, absolute; made when absent
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<OsString>,
    /// Give the command a terminal of its own; also where standard input is none, as in a job
    #[arg(short, long)]
    pub tty: bool,
    /// Accepted for Docker's sake: standard input is always passed on
    #[arg(short, long)]
    pub interactive: bool,
    /// Run an init as process 1, which passes signals on and reaps
    #[arg(long)]
    pub init: bool,
    /// The processes that the command sees
    #[arg(long, value_enum, value_name = "NAMESPACE")]
    pub pid: Option<Pid>,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Container")]
pub struct ContainerArgs {
    /// Name of the container; in a step of several tasks the task's number is added: NAME.3
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<String>,
    /// Keep the writable layer in this directory of the node instead of memory
    #[arg(long, value_name = "DIR")]
    pub writable_dir: Option<PathBuf>,
    /// Refuse writes to the image's files
    #[arg(long)]
    pub read_only: bool,
    /// Accepted for Docker's sake: a container always vanishes at its end
    #[arg(long)]
    pub rm: bool,
    /// Annotation of the container, for hooks
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// OCI runtime: runc, crun, or the path of one
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<String>,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Hooks")]
pub struct HookArgs {
    /// Replace the image's MPI library by the host's; implies --glibc
    #[arg(short, long)]
    pub mpi: bool,
    /// Which of the host's MPI libraries; implies --mpi
    #[arg(long, value_name = "TYPE")]
    pub mpi_type: Option<String>,
    /// Replace the image's glibc by the host's where that is newer
    #[arg(long)]
    pub glibc: bool,
    /// Run an SSH server in the container; implies --pid=private
    #[arg(long)]
    pub ssh: bool,
}

/// When `run` pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// When the store has no such image
    Missing,
    /// Always look whether the registry has another one
    Always,
    /// Never
    Never,
    /// When the registry has another one; the store's is taken where the registry cannot be asked
    Newer,
}

/// A PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pid {
    /// All of the host
    Host,
    /// Those of the container only
    Private,
}

/// How lists and records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Show the digests of the manifests
    #[arg(long)]
    pub digests: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// Print the image ids only
    #[arg(short, long, conflicts_with = "format")]
    pub quiet: bool,
    /// Print whole ids
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Use the site's store instead of your own
    #[arg(long)]
    pub centralized_repository: bool,
}

#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Images: by reference, or by the beginning of an image id (4 digits or more)
    #[arg(value_name = "IMAGE", required_unless_present = "force")]
    pub images: Vec<String>,
    /// Delete the files now, those removed before too, though jobs on other nodes may use them
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Change nothing: show what would be freed
    #[arg(long)]
    pub dry_run: bool,
    /// Remove also every image that none of your containers on this node uses; its file stays for
    /// the grace period, for jobs elsewhere
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    #[command(flatten)]
    pub store: StoreArgs,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Images: by reference, or by the beginning of an image id (4 digits or more)
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Accepted as for other commands; JSON is the only format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Json::Json)]
    pub format: Json,
}

/// The one format of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Json {
    /// JSON
    Json,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The image: a reference, or the beginning of an image id (4 digits or more)
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The squashfs file to write
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace a file that is there
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(override_usage = "sarus hooks [OPTIONS] [IMAGE [COMMAND [ARGUMENT...]]]")]
pub struct HooksArgs {
    /// Image and command for which the hooks' conditions are looked at
    #[arg(value_name = "IMAGE", num_args = 0.., trailing_var_arg = true)]
    pub words: Vec<OsString>,
    #[command(flatten)]
    pub hooks: HookArgs,
    #[command(flatten)]
    pub mounts: MountArgs,
    /// Annotation of the container
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The registry: HOST or HOST:PORT
    #[arg(value_name = "REGISTRY", default_value = sarus_oci::DEFAULT_REGISTRY)]
    pub registry: String,
    /// User name; asked for when not given
    #[arg(short, long, value_name = "USER")]
    pub username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
}

#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The registry: HOST or HOST:PORT
    #[arg(value_name = "REGISTRY", default_value = sarus_oci::DEFAULT_REGISTRY)]
    pub registry: String,
}

#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct VersionArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct UnpackArgs {
    /// Byte of the file at which the image begins
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub offset: u64,
    /// A squashfs file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The directory to fill; it exists and is empty
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
