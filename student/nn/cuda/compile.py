"""Compiles kernels.cu to PTX with NVRTC. usage: compile.py NVRTC_LIBRARY ARCHITECTURE OUT.ptx [OPTION..]"""

import ctypes
import pathlib
import sys

library, architecture, out, *more = sys.argv[1:]
folder = pathlib.Path(__file__).resolve().parent
operations = folder.parent / "src" / "cuda" / "op"

# NVRTC looks for its built-in headers' library by plain name.
for builtins in pathlib.Path(library).parent.glob("libnvrtc-builtins.so.*"):
    ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
nvrtc = ctypes.CDLL(library)


def check(code):
    if code != 0:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise SystemExit(f"NVRTC: {nvrtc.nvrtcGetErrorString(code).decode()}")


def text(size, get):
    length = ctypes.c_size_t()
    check(size(program, ctypes.byref(length)))
    buffer = ctypes.create_string_buffer(length.value)
    check(get(program, buffer))
    return buffer.value


program = ctypes.c_void_p()
source = (folder / "kernels.cu").read_bytes()
check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None))
options = [f"--gpu-architecture={architecture}", f"--include-path={folder}", f"--include-path={operations}"]
options += ["--std=c++17", "--fmad=true", *more]
failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*map(str.encode, options)))
log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode()
# The log names no path of the machine that built.
print(log.replace(f"{folder.parent}/", ""), end="", file=sys.stderr)
check(failed)
pathlib.Path(out).write_bytes(text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX))
