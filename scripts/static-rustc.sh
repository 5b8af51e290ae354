#!/usr/bin/env bash
# Stands between cargo and rustc for our own crates (RUSTC_WORKSPACE_WRAPPER) and makes programs static. The flag reaches
# the last step of a program only: macros and build scripts, which cannot be static, and all libraries of others stay as
# they are for every other build. (A plain sh would drop the variables with a hyphen that cargo tells tests of.)
case " $* " in
# What cargo asks about the compiler (a crate named ___), it asks for all crates.
*" --crate-name ___ "* | *" --crate-name build_script_build "*) ;;
*" --crate-type bin "*) exec "$@" -C target-feature=+crt-static -C strip=debuginfo ;;
esac
exec "$@"
