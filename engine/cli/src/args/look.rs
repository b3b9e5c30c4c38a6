//! Options of the commands that look into images: `ls`, `cat`, `diff`, `verify`.

use std::ffi::OsString;

use clap::Args;

use super::{Format, PlaceArgs};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "the options of ls")]
pub struct LsArgs {
    /// The image: a reference, the beginning of an image id (4 digits or more), or the path of a squashfs file
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
    /// What to list; without it the root directory. Symbolic links are followed inside the image
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Show type, mode, links, owner, group, size and time (UTC) as well
    #[arg(short = 'l')]
    pub long: bool,
    /// List directories in directories, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Show names that begin with a dot, `.` and `..` among them
    #[arg(short, long)]
    pub all: bool,
    /// Show names that begin with a dot, but not `.` and `..`
    #[arg(short = 'A', long)]
    pub almost_all: bool,
    /// Show a directory itself instead of what is in it
    #[arg(short, long)]
    pub directory: bool,
    /// With -l, show owners as numbers and not by the names in the image's /etc/passwd
    #[arg(short, long)]
    pub numeric_uid_gid: bool,
    /// One entry a line: as it always is
    #[arg(short = '1', hide = true)]
    pub one: bool,
    /// How to print; json tells all of every entry, as with -lA
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Debug, Args)]
pub struct CatArgs {
    /// The image: a reference, the beginning of an image id (4 digits or more), or the path of a squashfs file
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
    /// Files in the image. Symbolic links are followed inside the image
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// An image: a reference, the beginning of an image id (4 digits or more), or the path of a squashfs file
    #[arg(value_name = "A")]
    pub a: OsString,
    /// The image to compare with it: lines say what became of A's entries in B
    #[arg(value_name = "B")]
    pub b: OsString,
    /// Tell of entries of which only the time is another
    #[arg(long)]
    pub times: bool,
    /// How to print; json tells what of an entry changed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Images: by reference, by the beginning of an image id (4 digits or more), or squashfs files by path
    #[arg(value_name = "IMAGE", required_unless_present = "all", conflicts_with = "all")]
    pub images: Vec<OsString>,
    /// All images of the stores
    #[arg(long)]
    pub all: bool,
    /// Read and decompress everything in the images, too
    #[arg(long)]
    pub deep: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    #[command(flatten)]
    pub place: PlaceArgs,
}
