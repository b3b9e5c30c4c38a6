//! `sarus export`, and the unpacking that the shim asks for where no mount of an image works.

use sarus_image::{export as export_image, unpack_at};

use crate::args::{ExportArgs, UnpackArgs};
use crate::error::CliError;
use crate::settings::Settings;

/// `sarus export`
pub(crate) fn export(args: &ExportArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let stores = settings.stores(args.place.centralized_repository)?;
    let found = stores.find(&args.image, &args.place.platform())?;
    Ok(export_image(&found.image, &args.file, args.force)?)
}

/// `sarus unpack-image`
pub(crate) fn unpack(args: &UnpackArgs) -> Result<(), CliError> {
    let unpacked = unpack_at((&args.file, args.offset), &args.directory)?;
    log::info!("{} entries, {} bytes unpacked", unpacked.entries, unpacked.bytes);
    Ok(())
}
