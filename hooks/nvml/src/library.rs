//! The library as an object: one safe method for each of its functions that is used.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;

use libloading::{Library, Symbol};

use crate::{NOT_FOUND, NOT_SUPPORTED, NvmlError};

/// `NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE` and `NVML_DEVICE_UUID_V2_BUFFER_SIZE` are at most 96.
const TEXT_SIZE: c_uint = 96;

/// `nvmlDevice_t`: a handle of the library's own, valid until `nvmlShutdown`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device(*mut c_void);

/// The loaded and initialised library.
#[derive(Debug)]
pub(crate) struct Nvml(Library);

type Status = c_uint;
type TextOfDevice = unsafe extern "C" fn(*mut c_void, *mut c_char, c_uint) -> Status;
type NumberOfDevice = unsafe extern "C" fn(*mut c_void, *mut c_uint) -> Status;

fn check(function: &'static str, code: Status) -> Result<(), NvmlError> {
    if code == 0 { Ok(()) } else { Err(NvmlError::Call { function, code }) }
}

/// What a function wrote, up to the first zero.
fn text(buffer: [u8; TEXT_SIZE as usize]) -> String {
    let text = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
    text.to_string_lossy().into_owned()
}

#[expect(unsafe_code, reason = "NVML is a C library that is loaded at run time")]
impl Nvml {
    pub(crate) fn start(path: &Path) -> Result<Self, NvmlError> {
        let failed = |source| NvmlError::Load { path: path.to_owned(), source };
        // SAFETY: initialisers of the library run; the caller of this crate gives the path of the
        // host's own driver, whose initialisers have no precondition.
        let library = unsafe { Library::new(path) }.map_err(failed)?;
        let nvml = Self(library);
        let (name, init) =
            nvml.either::<unsafe extern "C" fn() -> Status>("nvmlInit_v2", "nvmlInit")?;
        // SAFETY: both are `nvmlReturn_t (void)`, and may be called at any time.
        check(name, unsafe { init() })?;
        Ok(nvml)
    }

    /// The function must be of the type `F`, as `nvml.h` declares it: each caller names it.
    fn function<F>(&self, name: &'static str) -> Result<Symbol<'_, F>, NvmlError> {
        // SAFETY: nothing is called here; every caller names the type of `nvml.h`.
        unsafe { self.0.get(name) }.map_err(|source| NvmlError::Symbol { name, source })
    }

    /// The function `new`, or `old`, which drivers had before it with the same arguments.
    fn either<F>(
        &self,
        new: &'static str,
        old: &'static str,
    ) -> Result<(&'static str, Symbol<'_, F>), NvmlError> {
        match self.function(new) {
            Ok(found) => Ok((new, found)),
            Err(error) => self.function(old).map(|found| (old, found)).map_err(|_older| error),
        }
    }

    pub(crate) fn driver_version(&self) -> Result<String, NvmlError> {
        let name = "nvmlSystemGetDriverVersion";
        let mut buffer = [0_u8; TEXT_SIZE as usize];
        let ask = self.function::<unsafe extern "C" fn(*mut c_char, c_uint) -> Status>(name)?;
        // SAFETY: it writes at most TEXT_SIZE bytes into a buffer of that size.
        check(name, unsafe { ask(buffer.as_mut_ptr().cast(), TEXT_SIZE) })?;
        Ok(text(buffer))
    }

    pub(crate) fn cuda_version(&self) -> Option<(u32, u32)> {
        let name = "nvmlSystemGetCudaDriverVersion_v2";
        let mut number: c_int = 0;
        let ask = self.function::<unsafe extern "C" fn(*mut c_int) -> Status>(name).ok()?;
        // SAFETY: it writes one `int`, which is ours.
        check(name, unsafe { ask(&raw mut number) }).ok()?;
        let number = u32::try_from(number).ok()?;
        Some((number / 1000, number % 1000 / 10))
    }

    pub(crate) fn count(&self) -> Result<u32, NvmlError> {
        type Ask = unsafe extern "C" fn(*mut c_uint) -> Status;
        let mut count: c_uint = 0;
        let (name, ask) = self.either::<Ask>("nvmlDeviceGetCount_v2", "nvmlDeviceGetCount")?;
        // SAFETY: it writes one `unsigned int`, which is ours.
        check(name, unsafe { ask(&raw mut count) })?;
        Ok(count)
    }

    pub(crate) fn device(&self, index: u32) -> Result<Device, NvmlError> {
        type Ask = unsafe extern "C" fn(c_uint, *mut *mut c_void) -> Status;
        let mut device = std::ptr::null_mut();
        let (name, ask) =
            self.either::<Ask>("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex")?;
        // SAFETY: it writes one handle, which is ours; any index may be asked for.
        check(name, unsafe { ask(index, &raw mut device) })?;
        Ok(Device(device))
    }

    pub(crate) fn uuid(&self, device: Device) -> Result<String, NvmlError> {
        let name = "nvmlDeviceGetUUID";
        let mut buffer = [0_u8; TEXT_SIZE as usize];
        let ask = self.function::<TextOfDevice>(name)?;
        // SAFETY: the handle is the library's own, which is not shut down before `self` is
        // dropped; it writes at most TEXT_SIZE bytes into a buffer of that size.
        check(name, unsafe { ask(device.0, buffer.as_mut_ptr().cast(), TEXT_SIZE) })?;
        Ok(text(buffer))
    }

    fn number(&self, name: &'static str, device: Device) -> Result<u32, NvmlError> {
        let mut number: c_uint = 0;
        let ask = self.function::<NumberOfDevice>(name)?;
        // SAFETY: the handle is the library's own, which is not shut down before `self` is
        // dropped; it writes one `unsigned int`, which is ours.
        check(name, unsafe { ask(device.0, &raw mut number) })?;
        Ok(number)
    }

    pub(crate) fn minor(&self, device: Device) -> Result<u32, NvmlError> {
        self.number("nvmlDeviceGetMinorNumber", device)
    }

    pub(crate) fn mig_count(&self, device: Device) -> Result<u32, NvmlError> {
        self.number("nvmlDeviceGetMaxMigDeviceCount", device)
    }

    pub(crate) fn gpu_instance(&self, device: Device) -> Result<u32, NvmlError> {
        self.number("nvmlDeviceGetGpuInstanceId", device)
    }

    pub(crate) fn compute_instance(&self, device: Device) -> Result<u32, NvmlError> {
        self.number("nvmlDeviceGetComputeInstanceId", device)
    }

    /// Whether MIG is on. Drivers before 450 have no such function, most GPUs no such thing.
    pub(crate) fn has_mig(&self, device: Device) -> Result<bool, NvmlError> {
        type Ask = unsafe extern "C" fn(*mut c_void, *mut c_uint, *mut c_uint) -> Status;
        let name = "nvmlDeviceGetMigMode";
        let Ok(ask) = self.function::<Ask>(name) else { return Ok(false) };
        let (mut current, mut pending): (c_uint, c_uint) = (0, 0);
        // SAFETY: the handle is the library's own, which is not shut down before `self` is
        // dropped; it writes two `unsigned int`, which are ours.
        let code = unsafe { ask(device.0, &raw mut current, &raw mut pending) };
        if code == NOT_SUPPORTED {
            return Ok(false);
        }
        check(name, code)?;
        Ok(current == 1)
    }

    /// The MIG device of that number, if there is one.
    pub(crate) fn mig(&self, device: Device, index: u32) -> Result<Option<Device>, NvmlError> {
        type Ask = unsafe extern "C" fn(*mut c_void, c_uint, *mut *mut c_void) -> Status;
        let name = "nvmlDeviceGetMigDeviceHandleByIndex";
        let mut part = std::ptr::null_mut();
        let ask = self.function::<Ask>(name)?;
        // SAFETY: the handle is the library's own, which is not shut down before `self` is
        // dropped; it writes one handle, which is ours.
        let code = unsafe { ask(device.0, index, &raw mut part) };
        if code == NOT_FOUND {
            return Ok(None);
        }
        check(name, code)?;
        Ok(Some(Device(part)))
    }
}

#[expect(unsafe_code, reason = "NVML is a C library that is loaded at run time")]
impl Drop for Nvml {
    fn drop(&mut self) {
        let Ok(stop) = self.function::<unsafe extern "C" fn() -> Status>("nvmlShutdown") else {
            return;
        };
        // SAFETY: `nvmlReturn_t nvmlShutdown(void)`; handles are used through `self` only, which
        // is at its end.
        let code = unsafe { stop() };
        if code != 0 {
            log::debug!("nvmlShutdown returned {code}");
        }
    }
}
