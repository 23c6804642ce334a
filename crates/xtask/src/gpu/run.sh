#!/usr/bin/env bash
# Runs what this bundle holds on a machine with a CUDA driver, and writes what happened to files.
#
#   ./run.sh [STEP...]     all steps, or some of:
#     tests                the tests, on the devices of TOLLGATE_TEST_DEVICES
#     memcheck racecheck synccheck initcheck
#                          the tests, under that tool of compute-sanitizer
#     goldens              single instructions, for comparison with the virtual GPU
#     benches              the benchmarks
#
# Variables:
#   TOLLGATE_TEST_DEVICES  devices of the tests; `cuda` if not set
#   TOLLGATE_RESULTS       folder of the results; `results` beside this script if not set
#   TOLLGATE_STEP_SECONDS  limit of one program; if not set, 600, and 1200 under a tool
#   TOLLGATE_TEST_FILTER   a part of the names of the tests to run; all if not set
#
# A program that fails, crashes or hangs does not stop the others. results/steps.tsv has a line for
# each: step, name, exit code (124 and 137: out of time; `-`: not run), seconds, log, command (or why it
# was not run). results/facts.txt tells the machine. The exit code is 0 if every program that ran
# succeeded, and at least one ran.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2

all_steps=(tests memcheck racecheck synccheck initcheck goldens benches)
results=${TOLLGATE_RESULTS:-results}
export TOLLGATE_TEST_DEVICES=${TOLLGATE_TEST_DEVICES:-cuda}
# Where the benchmarks keep their samples; without it they ask cargo, which is not here.
export CRITERION_HOME=$PWD/criterion
ran=0
failed=0

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

# run_program STEP NAME SECONDS COMMAND...
run_program() {
    local step=$1 name=$2 limit=${TOLLGATE_STEP_SECONDS:-$3}
    shift 3
    local log=logs/$step.$name.log start=$EPOCHREALTIME code seconds
    timeout --kill-after=10 "$limit" "$@" >"$results/$log" 2>&1 </dev/null
    code=$?
    seconds=$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$step" "$name" "$code" "$seconds" "$log" "$*" \
        >>"$results/steps.tsv"
    ran=$((ran + 1))
    if [[ $code == 0 ]]; then
        echo "$step $name: passed, $seconds s"
    else
        failed=$((failed + 1))
        echo "$step $name: FAILED ($code), $seconds s, see $results/$log"
    fi
    return "$code"
}

# leave_out STEP NAME WHY
leave_out() {
    printf '%s\t%s\t-\t0\t-\t%s\n' "$1" "$2" "$3" >>"$results/steps.tsv"
    echo "$1 $2: not run, $3"
}

fact() {
    printf '%s: %s\n' "$1" "${2:-unknown}" >>"$results/facts.txt"
}

# What nvidia-smi says to a query of one field for the first GPU; nothing where it knows no such field.
smi() {
    nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -n 1
}

write_facts() {
    : >"$results/facts.txt"
    fact date "$(date -u +%F)"
    fact devices "$TOLLGATE_TEST_DEVICES"
    if command -v nvidia-smi >/dev/null; then
        fact gpu "$(smi name)"
        fact driver "$(smi driver_version)"
        fact 'compute capability' "$(smi compute_cap)"
        fact memory "$(smi memory.total)"
        fact 'SM clock' "$(smi clocks.sm) (at most $(smi clocks.max.sm))"
        fact 'memory clock' "$(smi clocks.mem) (at most $(smi clocks.max.mem))"
        fact power "$(smi power.draw) (limit $(smi power.limit))"
        fact temperature "$(smi temperature.gpu) °C"
        fact ECC "$(smi ecc.mode.current)"
        fact MIG "$(smi mig.mode.current)"
        nvidia-smi -q >"$results/logs/nvidia-smi.txt" 2>&1
    else
        fact gpu none
    fi
    fact CPU "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
    fact cores "$(nproc)"
    fact kernel "$(uname -r)"
    fact glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
    fact nvcc "$(nvcc --version 2>/dev/null | sed -n 's/.*release //p')"
    fact compute-sanitizer "$(compute-sanitizer --version 2>/dev/null | sed -n 's/^Version //p')"
}

# The lines of tests.txt are: name, arguments.
run_tests() {
    local name arguments
    while read -r name arguments; do
        # shellcheck disable=SC2086  # arguments and filter are words
        run_program tests "$name" 600 "bin/tests/$name" $arguments ${TOLLGATE_TEST_FILTER:-}
    done <tests.txt
}

# sanitize TOOL: one thread, so that a report can be told to its test.
sanitize() {
    local tool=$1 name arguments
    if ! command -v compute-sanitizer >/dev/null; then
        leave_out "$tool" all 'no compute-sanitizer on this machine'
        return
    fi
    while read -r name arguments; do
        # shellcheck disable=SC2086
        run_program "$tool" "$name" 1200 compute-sanitizer --tool "$tool" --error-exitcode 99 \
            --print-limit 20 "bin/tests/$name" --test-threads 1 $arguments \
            ${TOLLGATE_TEST_FILTER:-}
    done <tests.txt
}

run_goldens() {
    local compiler=()
    if command -v g++ >/dev/null; then
        compiler=(g++)
    elif command -v nvcc >/dev/null; then
        compiler=(nvcc)
    else
        leave_out goldens compile 'neither g++ nor nvcc on this machine'
        return
    fi
    run_program goldens compile 120 "${compiler[@]}" -O2 -std=c++17 goldens/record.cpp \
        -o goldens/record -ldl || return
    run_program goldens record 300 bash -c \
        "goldens/record goldens/cases.txt >'$results/goldens.txt'"
}

run_benches() {
    local program name
    for program in bin/benches/*; do
        name=$(basename "$program")
        fact "clocks before $name" "$(smi clocks.sm,clocks.mem,power.draw,temperature.gpu)"
        run_program benches "$name" 600 "$program" --bench
        fact "clocks after $name" "$(smi clocks.sm,clocks.mem,power.draw,temperature.gpu)"
    done
}

steps=("$@")
[[ $# == 0 ]] && steps=("${all_steps[@]}")
for step in "${steps[@]}"; do
    case " ${all_steps[*]} " in
    *" $step "*) ;;
    *)
        usage >&2
        [[ $step == --help || $step == -h ]] && exit 0
        echo "run.sh: no step is called '$step'" >&2
        exit 2
        ;;
    esac
done

mkdir -p "$results/logs" || exit 2
cp BUNDLE.toml "$results/"
: >"$results/steps.tsv"
write_facts
for step in "${steps[@]}"; do
    case $step in
    tests) run_tests ;;
    memcheck | racecheck | synccheck | initcheck) sanitize "$step" ;;
    goldens) run_goldens ;;
    benches) run_benches ;;
    esac
done
echo "$ran programs ran, $failed failed; results are in $results"
[[ $ran -gt 0 && $failed == 0 ]]
