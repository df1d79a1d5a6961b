/*
 * A stand-in for NVIDIA's libnvidia-ml.so.1: 0 to 64 simulated GPUs, controlled at run time by a text file.
 *
 * The file named by SIMULATED_NVML_CONTROL is reread when it changes. control.py writes it; one statement per line:
 *
 *     driver 590.48.01          version that the driver reports
 *     gpus 8                    number of GPUs
 *     loaded 0                  the kernel module is not loaded: every call fails
 *     loads 2                   times the module was loaded; a session opened at another count is dead
 *     now 1700000000.5          freezes the simulated wall clock at this time (Unix time)
 *     clock_offset -3600        added to the timestamps of samples from now on: a step of the wall clock
 *     delay_us 40               each call uses the CPU for this long
 *     error FUNCTION CODE       the function returns this code (also for calls without a GPU)
 *     hang FUNCTION SECONDS     the function sleeps
 *     raw FUNCTION NUMBER       the function returns this number
 *     text FUNCTION HEX         the function returns these bytes
 *     missing FUNCTION          the driver does not have the function: it returns FUNCTION_NOT_FOUND
 *     entry_bytes FUNCTION N    size of the entries that the function writes into a list
 *     fields N                  one more than the highest field number that the driver knows
 *     seed N                    starts the random numbers for the rules that apply by chance
 *     gpu 3 key=value ...       settings of GPU 3; "gpu *" sets all. Keys: see apply().
 *     slice 3 key=value ...     one more MIG instance of GPU 3. Keys: see slice_statement().
 *     xid 3 79                  GPU 3 reported Xid 79; each line is one event, delivered once to each registered set
 *
 * Without a setting, the GPU behaves like an H100 80GB: power, temperature and clocks follow the utilization.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, TIMEOUT = 10, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, VERSION_MISMATCH = 25 };
enum { MAX_GPUS = 64, MAX_RULES = 128, MAX_SEGMENTS = 16, MAX_PIDS = 64, MAX_SLICES = 14, MAX_XIDS = 256, NAME = 72,
       TEXT = 128, LAST_FIELD = 307 };
enum { SAMPLES_A_SECOND = 6, BUFFER = 100 };  /* the driver's period is 1/6 s; the buffer has about a hundred samples */
enum { FIRST_PID = 4100000 };
#define MIB (1024ULL * 1024)
#define MPS_CLIENT_BYTES (64 * MIB)

/* Fault injection for one function on one GPU. */
struct rule {
    char function[NAME];
    unsigned code;     /* 0: no error */
    int has_raw;
    uint64_t raw;      /* value returned instead of the real one */
    double hang;       /* seconds */
    int has_text, has_count;
    unsigned text_bytes, count;   /* count: the length of a list that is returned instead of the real one */
    char text[TEXT];
    int missing;
    unsigned entry_bytes;
    unsigned chance;              /* percent of the calls that the rule applies to; 0: all */
};

/* The load from a time on. Kept as history for the sample buffer. */
struct segment { double since, level, period, duty, clock_offset; };

struct gpu;

/* A MIG instance: a GPU instance with one compute instance. Its handle is its address. */
struct slice {
    struct gpu *parent;
    char uuid[96], profile[32];
    unsigned place, gpu_instance, compute_instance, processes, pid_count, pids[MAX_PIDS];
    double memory_total, memory_used;    /* MiB */
    double sm_activity;                  /* percent of the instance */
    int placement;                       /* first memory slice; -1: the driver does not say */
    int lists_others;                    /* lists the processes of all compute instances of its GPU instance */
};

struct gpu {
    char name[96], uuid[96], bus_id[32];
    double level, period, duty;          /* percent while on; seconds (0: always on); share of the period that is on */
    double power, temperature;           /* negative: follows the utilization */
    double power_limit, memory_activity, encoder, decoder;
    double memory_total, memory_reserved, memory_used; /* MiB */
    double sm_clock, sm_clock_max, memory_clock;
    double fan;                          /* negative: not supported, as on cards that the server cools */
    double pstate, pcie_generation, pcie_width, pcie_replays;
    double ecc_corrected, ecc_uncorrected, rows_correctable, rows_uncorrectable;
    double retired_single, retired_double, retired_pending, rows_pending, rows_failed;
    double memory_temperature;           /* negative: no sensor */
    double pcie_sent, pcie_received, nvlink_sent, nvlink_received; /* bytes; NVLink counts in KiB */
    double nvlinks, nvlinks_inactive, nvlink_crc_flit, nvlink_crc_data, nvlink_replay, nvlink_recovery;
    double pcie_bits;                    /* 64, or 32: what the counters have */
    double throttled_power, throttled_boost, throttled_sw_thermal, throttled_hw_thermal, throttled_brake; /* seconds */
    double gpm;                          /* 1: Hopper and newer */
    double sm_activity, sm_occupancy, tensor, dram, fp64, fp32, fp16;  /* percent while on */
    double addressing_mode;              /* 0: none, 1: HMM, 2: ATS, as on Grace */
    double pcie_rate, nvlink_rate;       /* bytes a second while on, each way; through GPM only */
    unsigned slice_count;
    struct slice slices[MAX_SLICES];
    uint64_t throttle;
    int lost, missing, mig, dry_when_idle;
    double delay_us;
    unsigned processes, pid_count, pids[MAX_PIDS], mps_pid_count, mps_pids[MAX_PIDS];
    unsigned rule_count;
    struct rule rules[MAX_RULES];
    /* State that survives a change of the file. */
    unsigned segment_count;
    struct segment segments[MAX_SEGMENTS];
    double joules, joules_at;
    unsigned lost_in;                    /* session that reported it lost: only a later one can reopen it */
};

static struct {
    char driver[80];
    unsigned count;
    int loaded;
    long loads;
    double now;        /* 0: the real clock */
    double clock_offset, delay_us;
    unsigned fields;   /* one more than the highest field number */
    struct gpu gpus[MAX_GPUS];
    struct gpu system; /* rules for calls without a GPU */
    unsigned xid_count;
    struct { unsigned gpu; uint64_t code; } xids[MAX_XIDS];
} world;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t random_state = 1;
static unsigned sessions, session_number;
static long session_loads;

/* ---- time and load ------------------------------------------------------------------------------------------- */

static double clock_seconds(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double now_seconds(void) { return world.now > 0 ? world.now : clock_seconds(CLOCK_REALTIME); }

/* Seconds that a wave starting at time 0 with its busy part was on from 0 to t. */
static double time_on(const struct segment *s, double t)
{
    if (s->period <= 0) return t;
    double whole = floor(t / s->period), rest = t - whole * s->period, on = s->period * s->duty;
    return whole * on + (rest < on ? rest : on);
}

/* Integral of the busy ratio from a to b, in seconds. The first segment extends back indefinitely. */
static double busy_seconds(const struct gpu *g, double a, double b)
{
    double sum = 0;
    for (unsigned i = 0; i < g->segment_count; i++) {
        const struct segment *s = &g->segments[i];
        double from = i == 0 ? a : fmax(a, s->since);
        double to = i + 1 == g->segment_count ? b : fmin(b, g->segments[i + 1].since);
        if (to > from) sum += (time_on(s, to) - time_on(s, from)) * s->level / 100;
    }
    return sum;
}

/* The sample that ended at tick/6 seconds: covers the 1/6 s before. */
static unsigned sample_percent(const struct gpu *g, int64_t tick)
{
    double a = (double)(tick - 1) / SAMPLES_A_SECOND, b = (double)tick / SAMPLES_A_SECOND;
    return (unsigned)lround(100 * busy_seconds(g, a, b) * SAMPLES_A_SECOND);
}

static uint64_t sample_stamp(const struct gpu *g, int64_t tick)
{
    double end = (double)tick / SAMPLES_A_SECOND, offset = g->segments[0].clock_offset;
    for (unsigned i = 1; i < g->segment_count; i++)
        if (g->segments[i].since < end) offset = g->segments[i].clock_offset;
    return (uint64_t)llround((end + offset) * 1e6);
}

static int64_t last_tick(void) { return (int64_t)floor(now_seconds() * SAMPLES_A_SECOND); }

static double utilization(const struct gpu *g) { return sample_percent(g, last_tick()) / 100.0; }

static double between(const struct gpu *g, double idle, double full) { return idle + (full - idle) * utilization(g); }

static double watts(const struct gpu *g) { return g->power >= 0 ? g->power : between(g, 70, 632); }

static void add_energy(struct gpu *g, double now)
{
    double dt = now - g->joules_at;
    if (g->joules_at > 0 && dt > 0)
        g->joules += g->power >= 0 ? g->power * dt : 70 * dt + (632 - 70) * busy_seconds(g, g->joules_at, now);
    g->joules_at = now;
}

/* ---- control file -------------------------------------------------------------------------------------------- */

static void defaults(struct gpu *g, unsigned index)
{
    struct gpu kept = *g;
    memset(g, 0, sizeof *g);
    g->segment_count = kept.segment_count;
    memcpy(g->segments, kept.segments, sizeof g->segments);
    g->joules = kept.joules_at > 0 ? kept.joules : 1e6;
    g->joules_at = kept.joules_at;
    g->lost_in = kept.lost_in;
    snprintf(g->name, sizeof g->name, "NVIDIA H100 80GB HBM3");
    snprintf(g->uuid, sizeof g->uuid, "GPU-5e000000-0000-4000-8000-%012x", index);
    snprintf(g->bus_id, sizeof g->bus_id, "00000000:%02X:00.0", 0x10 + index);
    g->power = g->temperature = g->sm_clock = g->memory_activity = g->fan = -1;
    g->duty = 1;
    g->power_limit = 700;
    g->memory_total = 81559;
    g->memory_reserved = 479;
    g->sm_clock_max = 1980;
    g->memory_clock = 2619;
    g->pcie_generation = 5;
    g->pcie_width = 16;
    g->memory_temperature = 50;
    g->retired_single = -1;                /* rows are remapped instead */
    g->nvlinks = 18;
    g->pcie_bits = 64;
    g->gpm = 1;
}

static struct rule *rule_for(struct gpu *g, const char *function)
{
    for (unsigned i = 0; i < g->rule_count; i++)
        if (strcmp(g->rules[i].function, function) == 0) return &g->rules[i];
    if (g->rule_count == MAX_RULES) {
        fprintf(stderr, "simulated NVML: more than %d rules on one GPU\n", MAX_RULES);
        abort();
    }
    struct rule *rule = &g->rules[g->rule_count++];
    memset(rule, 0, sizeof *rule);
    snprintf(rule->function, sizeof rule->function, "%s", function);
    return rule;
}

static const struct { const char *key; size_t offset; } NUMBERS[] = {
#define NUMBER(field) { #field, offsetof(struct gpu, field) }
    NUMBER(level), NUMBER(period), NUMBER(duty), NUMBER(power), NUMBER(temperature), NUMBER(power_limit),
    NUMBER(memory_activity), NUMBER(encoder), NUMBER(decoder), NUMBER(memory_total), NUMBER(memory_reserved),
    NUMBER(memory_used), NUMBER(sm_clock), NUMBER(sm_clock_max), NUMBER(memory_clock), NUMBER(fan), NUMBER(pstate),
    NUMBER(pcie_generation), NUMBER(pcie_width), NUMBER(pcie_replays), NUMBER(ecc_corrected), NUMBER(ecc_uncorrected),
    NUMBER(rows_correctable), NUMBER(rows_uncorrectable), NUMBER(delay_us), NUMBER(retired_single),
    NUMBER(retired_double), NUMBER(retired_pending), NUMBER(rows_pending), NUMBER(rows_failed), NUMBER(memory_temperature),
    NUMBER(pcie_sent), NUMBER(pcie_received), NUMBER(nvlink_sent), NUMBER(nvlink_received), NUMBER(nvlinks),
    NUMBER(nvlinks_inactive), NUMBER(nvlink_crc_flit), NUMBER(nvlink_crc_data), NUMBER(nvlink_replay),
    NUMBER(nvlink_recovery), NUMBER(pcie_bits), NUMBER(throttled_power), NUMBER(throttled_boost),
    NUMBER(throttled_sw_thermal), NUMBER(throttled_hw_thermal), NUMBER(throttled_brake), NUMBER(gpm), NUMBER(sm_activity),
    NUMBER(sm_occupancy), NUMBER(tensor), NUMBER(dram), NUMBER(fp64), NUMBER(fp32), NUMBER(fp16), NUMBER(pcie_rate),
    NUMBER(nvlink_rate), NUMBER(addressing_mode),
#undef NUMBER
};

/* A mistake in a control file must not look like a healthy GPU. */
static void refuse(const char *what)
{
    fprintf(stderr, "simulated NVML: control file: do not understand '%s'\n", what);
    abort();
}

/* `c3a9` -> its bytes; no longer than there is room for. */
static void set_text(struct rule *rule, const char *hex)
{
    rule->has_text = 1;
    rule->text_bytes = 0;
    unsigned byte;
    while (rule->text_bytes < TEXT && sscanf(hex, "%2x", &byte) == 1) {
        rule->text[rule->text_bytes++] = (char)byte;
        hex += 2;
    }
}

static void apply(struct gpu *g, const char *key, char *value)
{
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++)
        if (strcmp(key, NUMBERS[i].key) == 0) {
            *(double *)((char *)g + NUMBERS[i].offset) = atof(value);
            return;
        }
    if (strcmp(key, "name") == 0) {                     /* '_' stands for a space */
        snprintf(g->name, sizeof g->name, "%.95s", value);
        for (char *c = g->name; *c; c++) if (*c == '_') *c = ' ';
    } else if (strcmp(key, "uuid") == 0) snprintf(g->uuid, sizeof g->uuid, "%.95s", value);
    else if (strcmp(key, "bus_id") == 0) snprintf(g->bus_id, sizeof g->bus_id, "%.31s", value);
    else if (strcmp(key, "throttle") == 0) g->throttle = strtoull(value, NULL, 0);
    else if (strcmp(key, "lost") == 0) g->lost = atoi(value);
    else if (strcmp(key, "missing") == 0) g->missing = atoi(value);
    else if (strcmp(key, "mig") == 0) g->mig = atoi(value);
    else if (strcmp(key, "dry_when_idle") == 0) g->dry_when_idle = atoi(value);
    else if (strcmp(key, "processes") == 0) g->processes = (unsigned)atoi(value);
    else if (strcmp(key, "pids") == 0) {
        char *rest = NULL;
        for (char *p = strtok_r(value, ",", &rest); p && g->pid_count < MAX_PIDS; p = strtok_r(NULL, ",", &rest))
            g->pids[g->pid_count++] = (unsigned)atoi(p);
    } else if (strcmp(key, "mps_pids") == 0) {
        char *rest = NULL;
        for (char *p = strtok_r(value, ",", &rest); p && g->mps_pid_count < MAX_PIDS; p = strtok_r(NULL, ",", &rest))
            g->mps_pids[g->mps_pid_count++] = (unsigned)atoi(p);
    } else if (strncmp(key, "error.", 6) == 0) rule_for(g, key + 6)->code = (unsigned)atoi(value);
    else if (strncmp(key, "hang.", 5) == 0) rule_for(g, key + 5)->hang = atof(value);
    else if (strncmp(key, "raw.", 4) == 0) {
        struct rule *rule = rule_for(g, key + 4);
        rule->has_raw = 1;
        rule->raw = strtoull(value, NULL, 0);
    } else if (strncmp(key, "chance.", 7) == 0) rule_for(g, key + 7)->chance = (unsigned)atoi(value);
    else if (strncmp(key, "text.", 5) == 0) set_text(rule_for(g, key + 5), value);
    else if (strncmp(key, "count.", 6) == 0) {
        struct rule *rule = rule_for(g, key + 6);
        rule->has_count = 1;
        rule->count = (unsigned)strtoul(value, NULL, 0);
    } else refuse(key);
}

static void gpu_statement(char *rest)
{
    char *state = NULL, *which = strtok_r(rest, " \t", &state);
    if (!which) refuse("gpu");
    int all = strcmp(which, "*") == 0, index = atoi(which);
    if (!all && (index < 0 || index >= MAX_GPUS)) refuse(which);
    for (char *word = strtok_r(NULL, " \t", &state); word; word = strtok_r(NULL, " \t", &state)) {
        char *value = strchr(word, '=');
        if (!value) refuse(word);
        *value++ = 0;
        for (int i = all ? 0 : index; i <= (all ? MAX_GPUS - 1 : index); i++) {
            char copy[1024];
            snprintf(copy, sizeof copy, "%s", value);
            apply(&world.gpus[i], word, copy);
        }
    }
}

static void slice_statement(char *rest)
{
    char *state = NULL, *which = strtok_r(rest, " \t", &state), *list = NULL;
    int index = which ? atoi(which) : -1;
    if (index < 0 || index >= MAX_GPUS || world.gpus[index].slice_count == MAX_SLICES) refuse("slice");
    struct gpu *g = &world.gpus[index];
    struct slice *s = &g->slices[g->slice_count];
    memset(s, 0, sizeof *s);
    s->parent = g;
    s->place = g->slice_count;
    s->gpu_instance = 7 + g->slice_count++;
    snprintf(s->profile, sizeof s->profile, "1g.10gb");
    snprintf(s->uuid, sizeof s->uuid, "MIG-5e000000-0000-4000-8000-%06x%06x", (unsigned)index, s->place);
    s->memory_total = 9984;
    s->placement = -1;
    for (char *word = strtok_r(NULL, " \t", &state); word; word = strtok_r(NULL, " \t", &state)) {
        char *value = strchr(word, '=');
        if (!value) refuse(word);
        *value++ = 0;
        if (strcmp(word, "uuid") == 0) snprintf(s->uuid, sizeof s->uuid, "%.95s", value);
        else if (strcmp(word, "profile") == 0) snprintf(s->profile, sizeof s->profile, "%.31s", value);
        else if (strcmp(word, "place") == 0) s->place = (unsigned)atoi(value);
        else if (strcmp(word, "gpu_instance") == 0) s->gpu_instance = (unsigned)atoi(value);
        else if (strcmp(word, "compute_instance") == 0) s->compute_instance = (unsigned)atoi(value);
        else if (strcmp(word, "memory_total") == 0) s->memory_total = atof(value);
        else if (strcmp(word, "memory_used") == 0) s->memory_used = atof(value);
        else if (strcmp(word, "sm_activity") == 0) s->sm_activity = atof(value);
        else if (strcmp(word, "placement") == 0) s->placement = atoi(value);
        else if (strcmp(word, "lists_others") == 0) s->lists_others = atoi(value);
        else if (strcmp(word, "processes") == 0) s->processes = (unsigned)atoi(value);
        else if (strcmp(word, "pids") == 0) {
            for (char *p = strtok_r(value, ",", &list); p && s->pid_count < MAX_PIDS; p = strtok_r(NULL, ",", &list))
                s->pids[s->pid_count++] = (unsigned)atoi(p);
        } else refuse(word);
    }
}

static void xid_statement(const char *rest)
{
    unsigned gpu, code;
    if (sscanf(rest, "%u %u", &gpu, &code) != 2 || gpu >= MAX_GPUS || world.xid_count == MAX_XIDS) refuse("xid");
    world.xids[world.xid_count].gpu = gpu;
    world.xids[world.xid_count++].code = code;
}

static void statement(char *line)
{
    char *rest = line + strcspn(line, " \t");
    if (*rest) *rest++ = 0;
    rest += strspn(rest, " \t");
    if (strcmp(line, "gpu") == 0) gpu_statement(rest);
    else if (strcmp(line, "slice") == 0) slice_statement(rest);
    else if (strcmp(line, "xid") == 0) xid_statement(rest);
    else if (strcmp(line, "gpus") == 0) world.count = (unsigned)atoi(rest) > MAX_GPUS ? MAX_GPUS : (unsigned)atoi(rest);
    else if (strcmp(line, "driver") == 0) snprintf(world.driver, sizeof world.driver, "%s", rest);
    else if (strcmp(line, "loaded") == 0) world.loaded = atoi(rest);
    else if (strcmp(line, "loads") == 0) world.loads = atol(rest);
    else if (strcmp(line, "now") == 0) world.now = atof(rest);
    else if (strcmp(line, "clock_offset") == 0) world.clock_offset = atof(rest);
    else if (strcmp(line, "delay_us") == 0) world.delay_us = atof(rest);
    else if (strcmp(line, "fields") == 0) world.fields = (unsigned)atoi(rest);
    else if (strcmp(line, "seed") == 0) random_state = strtoull(rest, NULL, 0) | 1;
    else if (strcmp(line, "missing") == 0) rule_for(&world.system, rest)->missing = 1;
    else {
        char *value = rest + strcspn(rest, " \t");
        if (!*value) refuse(line);
        *value++ = 0;
        struct rule *rule = rule_for(&world.system, rest);
        if (strcmp(line, "error") == 0) rule->code = (unsigned)atoi(value);
        else if (strcmp(line, "hang") == 0) rule->hang = atof(value);
        else if (strcmp(line, "text") == 0) set_text(rule, value);
        else if (strcmp(line, "entry_bytes") == 0) rule->entry_bytes = (unsigned)atoi(value);
        else if (strcmp(line, "raw") == 0) {
            rule->has_raw = 1;
            rule->raw = strtoull(value, NULL, 0);
        } else refuse(line);
    }
}

static void remember_load(struct gpu *g, double now)
{
    struct segment next = { now, g->level, g->period, g->duty, world.clock_offset };
    if (g->segment_count) {
        struct segment last = g->segments[g->segment_count - 1];
        next.since = last.since;
        if (memcmp(&last, &next, sizeof last) == 0) return;
        next.since = now;
    }
    if (g->segment_count == MAX_SEGMENTS)
        memmove(g->segments, g->segments + 1, (--g->segment_count) * sizeof *g->segments);
    g->segments[g->segment_count++] = next;
}

static void reload(FILE *file)
{
    /* Energy up to now, with the old settings. */
    double before = now_seconds();
    for (unsigned i = 0; i < MAX_GPUS; i++) add_energy(&world.gpus[i], before);
    snprintf(world.driver, sizeof world.driver, "590.48.01");
    world.count = 1;
    world.loaded = 1;
    world.loads = 1;
    world.xid_count = 0;
    world.now = world.clock_offset = world.delay_us = 0;
    world.fields = LAST_FIELD + 1;
    memset(&world.system, 0, sizeof world.system);
    for (unsigned i = 0; i < MAX_GPUS; i++) defaults(&world.gpus[i], i);
    char *line = NULL;
    size_t room = 0;
    while (file && getline(&line, &room, file) >= 0) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line && *line != '#') statement(line);
    }
    free(line);
    double now = now_seconds();
    for (unsigned i = 0; i < MAX_GPUS; i++) {
        if (world.gpus[i].joules_at <= 0) world.gpus[i].joules_at = now;
        add_energy(&world.gpus[i], now);
        remember_load(&world.gpus[i], now);
    }
}

/* Called with the lock held. A stat costs about a microsecond: once a millisecond, or when the caller begins a reading;
 * each time while the control file sets the clock, so that no call sees an earlier time. */
static void refresh(int at_once)
{
    static double checked;
    static int known;
    static struct stat seen;
    static char seen_path[4096];
    double now = clock_seconds(CLOCK_MONOTONIC);
    if (known && !at_once && world.now == 0 && now - checked < 1e-3) return;
    checked = now;
    const char *path = getenv("SIMULATED_NVML_CONTROL");
    struct stat found;
    memset(&found, 0, sizeof found);
    FILE *file = NULL;
    if (path && stat(path, &found) != 0) memset(&found, 0, sizeof found);
    if (known && found.st_ino == seen.st_ino && found.st_size == seen.st_size
        && found.st_mtim.tv_sec == seen.st_mtim.tv_sec && found.st_mtim.tv_nsec == seen.st_mtim.tv_nsec) return;
    if (path && found.st_ino) file = fopen(path, "r");
    if (strcmp(seen_path, path ? path : "") != 0) {   /* another file is another machine, without history */
        memset(world.gpus, 0, sizeof world.gpus);
        snprintf(seen_path, sizeof seen_path, "%s", path ? path : "");
    }
    reload(file);
    if (file) fclose(file);
    seen = found;
    known = 1;
}

/* ---- one call ------------------------------------------------------------------------------------------------ */

static void spend(double microseconds)
{
    /* A sleep is too coarse for microseconds, and a real call uses the CPU as well. */
    double end = clock_seconds(CLOCK_MONOTONIC) + microseconds / 1e6;
    while (microseconds > 0 && clock_seconds(CLOCK_MONOTONIC) < end) { }
}

static void hang(double seconds)
{
    struct timespec t = { (time_t)seconds, (long)((seconds - floor(seconds)) * 1e9) };
    if (seconds > 0) nanosleep(&t, NULL);
}

static int is_lost(struct gpu *g)
{
    if (g->lost) g->lost_in = session_number;
    return g->lost_in == session_number;
}

struct call { struct gpu *gpu; const struct rule *rule; const struct slice *slice; };

/* The MIG instance with this handle, if it exists. */
static const struct slice *slice_of(const void *device)
{
    for (unsigned i = 0; i < MAX_GPUS; i++)
        for (unsigned k = 0; k < world.gpus[i].slice_count; k++)
            if (device == &world.gpus[i].slices[k]) return world.gpus[i].mig ? device : NULL;
    return NULL;
}

/* The rule for a function of the driver as a whole; NULL: none. */
static const struct rule *system_rule(const char *function)
{
    for (unsigned i = 0; i < world.system.rule_count; i++)
        if (strcmp(world.system.rules[i].function, function) == 0) return &world.system.rules[i];
    return NULL;
}

/* Whether a rule applies to this call. Called with the lock held. Xorshift (Marsaglia, 2003). */
static int applies(const struct rule *rule)
{
    if (rule->chance == 0) return 1;
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % 100 < rule->chance;
}

static int is_listed(const struct gpu *g) { return g < world.gpus + world.count && !g->missing; }

static int begin(const char *function, void *device, int needs_device, struct call *call)
{
    static const struct rule none;
    struct gpu *g = device;
    int code = SUCCESS;
    pthread_mutex_lock(&lock);
    refresh(strcmp(function, "nvmlDeviceGetCount_v2") == 0);
    call->slice = needs_device == 2 ? slice_of(device) : NULL;
    if (call->slice) g = call->slice->parent;
    call->gpu = g;
    call->rule = &none;
    if (needs_device && (g < world.gpus || g >= world.gpus + MAX_GPUS || ((char *)g - (char *)world.gpus) % sizeof *g))
        code = INVALID_ARGUMENT;      /* as NVML returns for the handle of a MIG instance, also of a removed one */
    else {
        struct gpu *owner = needs_device ? g : &world.system;
        for (unsigned i = 0; i < owner->rule_count; i++)
            if (strcmp(owner->rules[i].function, function) == 0 && applies(&owner->rules[i])) call->rule = &owner->rules[i];
        const struct rule *driver = system_rule(function);
        if (driver && driver->missing) code = FUNCTION_NOT_FOUND;
        else if (!world.loaded) code = DRIVER_NOT_LOADED;
        else if (sessions == 0 || session_loads != world.loads) code = UNINITIALIZED;
        else if (needs_device && (!is_listed(g) || is_lost(g))) code = GPU_IS_LOST;
        else code = (int)call->rule->code;
    }
    double delay = world.delay_us + (needs_device && code != INVALID_ARGUMENT ? g->delay_us : 0);
    double seconds = call->rule->hang;
    pthread_mutex_unlock(&lock);
    spend(delay);
    hang(seconds);
    return code;
}

#define BEGIN_DEVICE(FUNCTION) \
    struct call call; \
    int code = begin(FUNCTION, device, 1, &call); \
    if (code) return code; \
    struct gpu *g = call.gpu; \
    (void)g

/* For functions that also take the handle of a MIG instance: then `s` is not NULL. */
#define BEGIN_EITHER(FUNCTION) \
    struct call call; \
    int code = begin(FUNCTION, device, 2, &call); \
    if (code) return code; \
    struct gpu *g = call.gpu; \
    const struct slice *s = call.slice; \
    (void)g

#define BEGIN_SYSTEM(FUNCTION) \
    struct call call; \
    int code = begin(FUNCTION, NULL, 0, &call); \
    if (code) return code

/* A function that returns one unsigned number. */
#define SCALAR(FUNCTION, VALUE) \
    int FUNCTION(void *device, unsigned *out) \
    { \
        BEGIN_DEVICE(#FUNCTION); \
        *out = call.rule->has_raw ? (unsigned)call.rule->raw : (unsigned)lround(VALUE); \
        return SUCCESS; \
    }

#define UNSUPPORTED(FUNCTION, ...) int FUNCTION(void *device, ##__VA_ARGS__) { BEGIN_DEVICE(#FUNCTION); return NOT_SUPPORTED; }

/* ---- session and system -------------------------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&lock);
    refresh(1);
    const struct rule *rule = NULL;
    for (unsigned i = 0; i < world.system.rule_count; i++)
        if (strcmp(world.system.rules[i].function, "nvmlInitWithFlags") == 0) rule = &world.system.rules[i];
    int code = rule && rule->code ? (int)rule->code : world.loaded ? SUCCESS : DRIVER_NOT_LOADED;
    if (code == SUCCESS) {
        if (sessions++ == 0) {
            session_loads = world.loads;
            session_number++;
        }
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void)
{
    pthread_mutex_lock(&lock);
    int code = sessions ? SUCCESS : UNINITIALIZED;
    if (sessions) sessions--;
    pthread_mutex_unlock(&lock);
    return code;
}

const char *nvmlErrorString(int code) { return code == SUCCESS ? "Success" : "Simulated error"; }

static int text(const struct call *call, char *out, unsigned room, const char *value)
{
    if (call->rule->has_text) {                              /* without an end if there is no room for one */
        unsigned bytes = call->rule->text_bytes < room ? call->rule->text_bytes : room;
        memcpy(out, call->rule->text, bytes);
        if (bytes < room) out[bytes] = 0;
        return SUCCESS;
    }
    return snprintf(out, room, "%s", value) < (int)room ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlSystemGetDriverVersion(char *out, unsigned room)
{
    BEGIN_SYSTEM("nvmlSystemGetDriverVersion");
    return text(&call, out, room, world.driver);
}

int nvmlSystemGetNVMLVersion(char *out, unsigned room)
{
    BEGIN_SYSTEM("nvmlSystemGetNVMLVersion");
    return text(&call, out, room, "13.590.48.01");
}

int nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    BEGIN_SYSTEM("nvmlSystemGetCudaDriverVersion_v2");
    *out = 13010;
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }

int nvmlDeviceGetCount_v2(unsigned *out)
{
    BEGIN_SYSTEM("nvmlDeviceGetCount_v2");
    *out = 0;
    for (unsigned i = 0; i < world.count; i++) *out += !world.gpus[i].missing;
    if (call.rule->has_raw) *out = (unsigned)call.rule->raw;
    return SUCCESS;
}

/* A rule of a GPU for the first of these functions applies to all: error 4 as where a device cgroup forbids it. */
static int hand_out(struct gpu *g, void **out)
{
    if (is_lost(g)) return GPU_IS_LOST;
    for (unsigned i = 0; i < g->rule_count; i++)
        if (strcmp(g->rules[i].function, "nvmlDeviceGetHandleByIndex_v2") == 0) {
            if (g->rules[i].code) return (int)g->rules[i].code;
            if (g->rules[i].has_raw) g = NULL;
            break;
        }
    *out = g;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out)
{
    BEGIN_SYSTEM("nvmlDeviceGetHandleByIndex_v2");
    for (unsigned i = 0; i < world.count; i++)
        if (!world.gpus[i].missing && index-- == 0) return hand_out(&world.gpus[i], out);
    return INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **out)
{
    BEGIN_SYSTEM("nvmlDeviceGetHandleByUUID");
    for (unsigned i = 0; i < world.count; i++)
        if (!world.gpus[i].missing && strcmp(world.gpus[i].uuid, uuid) == 0) return hand_out(&world.gpus[i], out);
    return NOT_FOUND;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **out)
{
    BEGIN_SYSTEM("nvmlDeviceGetHandleByPciBusId_v2");
    for (unsigned i = 0; i < world.count; i++)
        if (!world.gpus[i].missing && strcmp(world.gpus[i].bus_id, bus_id) == 0) return hand_out(&world.gpus[i], out);
    return NOT_FOUND;
}

/* ---- identity ------------------------------------------------------------------------------------------------ */

int nvmlDeviceGetIndex(void *device, unsigned *out)
{
    BEGIN_DEVICE("nvmlDeviceGetIndex");
    *out = 0;
    for (struct gpu *other = world.gpus; other < g; other++) *out += !other->missing;
    return SUCCESS;
}

int nvmlDeviceGetMinorNumber(void *device, unsigned *out)
{
    BEGIN_DEVICE("nvmlDeviceGetMinorNumber");
    *out = (unsigned)(g - world.gpus);
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *out, unsigned room)
{
    BEGIN_EITHER("nvmlDeviceGetName");
    char full[160];
    snprintf(full, sizeof full, s ? "%s MIG %s" : "%s", g->name, s ? s->profile : "");
    return text(&call, out, room, full);
}

int nvmlDeviceGetUUID(void *device, char *out, unsigned room)
{
    BEGIN_EITHER("nvmlDeviceGetUUID");
    return text(&call, out, room, s ? s->uuid : g->uuid);
}

int nvmlDeviceGetSerial(void *device, char *out, unsigned room)
{
    BEGIN_DEVICE("nvmlDeviceGetSerial");
    char serial[32];
    snprintf(serial, sizeof serial, "16500%08d", (int)(g - world.gpus));
    return text(&call, out, room, serial);
}

struct pci { char legacy[16]; unsigned domain, bus, device, device_id, subsystem_id; char bus_id[32]; };

int nvmlDeviceGetPciInfo_v3(void *device, struct pci *out)
{
    BEGIN_DEVICE("nvmlDeviceGetPciInfo_v3");
    memset(out, 0, sizeof *out);
    if (call.rule->has_text) {
        memcpy(out->bus_id, call.rule->text, call.rule->text_bytes < sizeof out->bus_id ? call.rule->text_bytes
                                                                                         : sizeof out->bus_id);
        return SUCCESS;
    }
    sscanf(g->bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    out->device_id = 0x233010DE;
    out->subsystem_id = 0x16C110DE;
    snprintf(out->legacy, sizeof out->legacy, "%.12s", g->bus_id + 4);
    snprintf(out->bus_id, sizeof out->bus_id, "%.31s", g->bus_id);
    return SUCCESS;
}

struct addressing_mode { unsigned version, value; };

int nvmlDeviceGetAddressingMode(void *device, struct addressing_mode *out)
{
    BEGIN_DEVICE("nvmlDeviceGetAddressingMode");
    if (out->version != (sizeof *out | 1 << 24)) return VERSION_MISMATCH;
    out->value = (unsigned)g->addressing_mode;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor)
{
    BEGIN_DEVICE("nvmlDeviceGetCudaComputeCapability");
    *major = 9;
    *minor = 0;
    return SUCCESS;
}

/* ---- load ---------------------------------------------------------------------------------------------------- */

/* In MIG mode the driver reports no utilization of the whole GPU. */
#define NOT_IN_MIG_MODE if (g->mig) return NOT_SUPPORTED

struct utilization { unsigned gpu, memory; };

int nvmlDeviceGetUtilizationRates(void *device, struct utilization *out)
{
    BEGIN_DEVICE("nvmlDeviceGetUtilizationRates");
    NOT_IN_MIG_MODE;
    unsigned percent = sample_percent(g, last_tick());
    out->gpu = call.rule->has_raw ? (unsigned)call.rule->raw : percent;
    out->memory = (unsigned)lround(g->memory_activity >= 0 ? g->memory_activity : 0.11 * percent);
    return SUCCESS;
}

struct sample { uint64_t stamp; union { double d; unsigned u; uint64_t bits; } value; };

int nvmlDeviceGetSamples(void *device, unsigned type, uint64_t seen, unsigned *value_type, unsigned *count,
                         struct sample *out)
{
    BEGIN_DEVICE("nvmlDeviceGetSamples");
    NOT_IN_MIG_MODE;
    if (type != 1) return NOT_SUPPORTED;    /* NVML_GPU_UTILIZATION_SAMPLES */
    *value_type = 1;                        /* NVML_VALUE_TYPE_UNSIGNED_INT */
    if (call.rule->has_count) {
        *count = call.rule->count;
        return out ? INSUFFICIENT_SIZE : SUCCESS;
    }
    if (!out) {                             /* the size query returns the size of the whole buffer */
        *count = BUFFER;
        return SUCCESS;
    }
    unsigned filled = 0;
    int64_t last = last_tick();
    for (int64_t tick = last - BUFFER + 1; tick <= last; tick++) {
        uint64_t stamp = sample_stamp(g, tick);
        if (stamp <= seen) continue;
        unsigned percent = sample_percent(g, tick);
        if (g->dry_when_idle && percent == 0) continue;
        if (filled == *count) return INSUFFICIENT_SIZE;
        memset(&out[filled], 0, sizeof *out);
        out[filled].stamp = stamp;
        out[filled++].value.u = call.rule->has_raw ? (unsigned)call.rule->raw : percent;
    }
    *count = filled;
    return filled ? SUCCESS : NOT_FOUND;
}

static int codec(struct call *call, double percent, unsigned *out, unsigned *period_us)
{
    if (call->gpu->mig) return NOT_SUPPORTED;
    *out = call->rule->has_raw ? (unsigned)call->rule->raw : (unsigned)lround(percent);
    *period_us = 1000000 / SAMPLES_A_SECOND;
    return SUCCESS;
}

int nvmlDeviceGetEncoderUtilization(void *device, unsigned *out, unsigned *period_us)
{
    BEGIN_DEVICE("nvmlDeviceGetEncoderUtilization");
    return codec(&call, g->encoder, out, period_us);
}

int nvmlDeviceGetDecoderUtilization(void *device, unsigned *out, unsigned *period_us)
{
    BEGIN_DEVICE("nvmlDeviceGetDecoderUtilization");
    return codec(&call, g->decoder, out, period_us);
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

struct memory_v1 { uint64_t total, free, used; };
struct memory_v2 { unsigned version; uint64_t total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory_v2 *out)
{
    BEGIN_EITHER("nvmlDeviceGetMemoryInfo_v2");
    if (out->version != (sizeof *out | 2 << 24)) return VERSION_MISMATCH;
    if (s) {
        out->total = (uint64_t)s->memory_total * MIB;
        out->reserved = 0;
        out->used = (uint64_t)s->memory_used * MIB;
        out->free = out->total - out->used;
        return SUCCESS;
    }
    out->total = (uint64_t)g->memory_total * MIB;
    out->reserved = (uint64_t)g->memory_reserved * MIB;
    out->used = call.rule->has_raw ? call.rule->raw : (uint64_t)g->memory_used * MIB;
    out->free = out->total - out->reserved - (uint64_t)g->memory_used * MIB;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory_v1 *out)
{
    BEGIN_EITHER("nvmlDeviceGetMemoryInfo");
    if (s) {
        out->total = (uint64_t)s->memory_total * MIB;
        out->used = (uint64_t)s->memory_used * MIB;
        out->free = out->total - out->used;
        return SUCCESS;
    }
    out->total = (uint64_t)g->memory_total * MIB;
    out->used = call.rule->has_raw ? call.rule->raw : (uint64_t)(g->memory_used + g->memory_reserved) * MIB;
    out->free = (uint64_t)(g->memory_total - g->memory_used - g->memory_reserved) * MIB;
    return SUCCESS;
}

int nvmlDeviceGetBAR1MemoryInfo(void *device, struct memory_v1 *out)
{
    BEGIN_DEVICE("nvmlDeviceGetBAR1MemoryInfo");
    *out = (struct memory_v1){ 131072 * MIB, 131071 * MIB, 1 * MIB };
    return SUCCESS;
}

/* ---- clocks, power, links ------------------------------------------------------------------------------------ */

static double clock_mhz(const struct gpu *g, unsigned type)   /* graphics, sm, memory, video */
{
    if (type == 2) return g->memory_clock;
    if (type == 3) return utilization(g) > 0 ? 1545 : 765;
    if (g->sm_clock >= 0) return g->sm_clock;
    return utilization(g) > 0 ? g->sm_clock_max : 345;
}

int nvmlDeviceGetClockInfo(void *device, unsigned type, unsigned *out)
{
    BEGIN_DEVICE("nvmlDeviceGetClockInfo");
    if (type > 3) return INVALID_ARGUMENT;
    *out = call.rule->has_raw ? (unsigned)call.rule->raw : (unsigned)lround(clock_mhz(g, type));
    return SUCCESS;
}

int nvmlDeviceGetMaxClockInfo(void *device, unsigned type, unsigned *out)
{
    BEGIN_DEVICE("nvmlDeviceGetMaxClockInfo");
    if (type > 3) return INVALID_ARGUMENT;
    double mhz = type == 2 ? g->memory_clock : type == 3 ? 1545 : g->sm_clock_max;
    *out = call.rule->has_raw ? (unsigned)call.rule->raw : (unsigned)lround(mhz);
    return SUCCESS;
}

static double celsius(const struct gpu *g) { return g->temperature >= 0 ? g->temperature : between(g, 41, 59); }

int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *out)
{
    BEGIN_DEVICE("nvmlDeviceGetTemperature");
    if (sensor != 0) return INVALID_ARGUMENT;
    *out = call.rule->has_raw ? (unsigned)call.rule->raw : (unsigned)lround(celsius(g));
    return SUCCESS;
}

struct temperature { unsigned version, sensor; int celsius; };

int nvmlDeviceGetTemperatureV(void *device, struct temperature *out)
{
    BEGIN_DEVICE("nvmlDeviceGetTemperatureV");
    out->celsius = call.rule->has_raw ? (int)call.rule->raw : (int)lround(celsius(g));
    return SUCCESS;
}

SCALAR(nvmlDeviceGetPowerUsage, watts(g) * 1000)
SCALAR(nvmlDeviceGetEnforcedPowerLimit, g->power_limit * 1000)
SCALAR(nvmlDeviceGetPowerManagementLimit, g->power_limit * 1000)

int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *low, unsigned *high)
{
    BEGIN_DEVICE("nvmlDeviceGetPowerManagementLimitConstraints");
    *low = call.rule->has_raw ? (unsigned)call.rule->raw : (unsigned)lround(g->power_limit * 300);
    *high = call.rule->has_raw ? (unsigned)call.rule->raw : (unsigned)lround(g->power_limit * 1000);
    return SUCCESS;
}

SCALAR(nvmlDeviceGetPerformanceState, g->pstate)
SCALAR(nvmlDeviceGetCurrPcieLinkGeneration, g->pcie_generation)
SCALAR(nvmlDeviceGetCurrPcieLinkWidth, g->pcie_width)
SCALAR(nvmlDeviceGetPcieReplayCounter, g->pcie_replays)
SCALAR(nvmlDeviceGetPersistenceMode, 1)
SCALAR(nvmlDeviceGetDisplayMode, 0)
SCALAR(nvmlDeviceGetDisplayActive, 0)
SCALAR(nvmlDeviceGetComputeMode, 0)
SCALAR(nvmlDeviceGetMaxMigDeviceCount, 7)
SCALAR(nvmlDeviceIsMigDeviceHandle, 0)

int nvmlDeviceGetFanSpeed(void *device, unsigned *out)
{
    BEGIN_DEVICE("nvmlDeviceGetFanSpeed");
    if (g->fan < 0 && !call.rule->has_raw) return NOT_SUPPORTED;
    *out = call.rule->has_raw ? (unsigned)call.rule->raw : (unsigned)lround(g->fan);
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, uint64_t *out)
{
    BEGIN_DEVICE("nvmlDeviceGetTotalEnergyConsumption");
    pthread_mutex_lock(&lock);
    add_energy(g, now_seconds());
    *out = call.rule->has_raw ? call.rule->raw : (uint64_t)(g->joules * 1000);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static int reasons(struct call *call, uint64_t *out)
{
    uint64_t idle = utilization(call->gpu) > 0 ? 0 : 1;
    *out = call->rule->has_raw ? call->rule->raw : call->gpu->throttle | idle;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *device, uint64_t *out)
{
    BEGIN_DEVICE("nvmlDeviceGetCurrentClocksEventReasons");
    return reasons(&call, out);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, uint64_t *out)
{
    BEGIN_DEVICE("nvmlDeviceGetCurrentClocksThrottleReasons");
    return reasons(&call, out);
}

int nvmlDeviceGetPcieThroughput(void *device, unsigned counter, unsigned *out)
{
    BEGIN_DEVICE("nvmlDeviceGetPcieThroughput");
    *out = (unsigned)between(g, counter == 0 ? 352 : 329, 1200000);
    return SUCCESS;
}

struct fabric_info { unsigned char cluster[16]; unsigned status, clique; unsigned char state; };

int nvmlDeviceGetGpuFabricInfo(void *device, struct fabric_info *out)
{
    BEGIN_DEVICE("nvmlDeviceGetGpuFabricInfo");
    *out = (struct fabric_info){ .state = call.rule->has_raw ? (unsigned char)call.rule->raw : 3 };   /* completed */
    return SUCCESS;
}

struct field { unsigned id, scope; int64_t stamp, latency; unsigned type, code; uint64_t value; };

/* NVIDIA has renumbered the clocks event reasons twice: see nvidia_fields.py. */
static unsigned first_reason_field(void)
{
    int major = 0, minor = 0;
    sscanf(world.driver, "%d.%d", &major, &minor);
    return major > 580 || (major == 580 && minor >= 82) ? 269 : major >= 575 ? 251 : 0;
}

static int field_value(const struct gpu *g, struct field *f)
{
    unsigned first = first_reason_field();
    if (f->id >= world.fields) return INVALID_ARGUMENT;
    double value = 0;
    f->type = 3;                                                     /* NVML_VALUE_TYPE_UNSIGNED_LONG_LONG */
    if (first && f->id >= first && f->id < first + 3) {
        double seconds[] = { g->throttled_sw_thermal, g->throttled_hw_thermal, g->throttled_brake };
        value = seconds[f->id - first] * 1e9;
    } else if (f->id >= 251 && f->id <= 273) {                       /* power smoothing */
        if (first == 0 && f->id > 268) return INVALID_ARGUMENT;
        value = 1;
    } else switch (f->id) {
    case 29: case 30: case 31:                                       /* retired pages, and pending retirement */
        if (g->retired_single < 0) return NOT_SUPPORTED;
        value = f->id == 29 ? g->retired_single : f->id == 30 ? g->retired_double : g->retired_pending;
        break;
    case 38: value = g->nvlink_crc_flit; break;
    case 45: value = g->nvlink_crc_data; break;
    case 52: value = g->nvlink_replay; break;
    case 59: value = g->nvlink_recovery; break;
    case 74: value = g->throttled_power * 1e9; break;
    case 75: value = (g->throttled_sw_thermal + g->throttled_hw_thermal) * 1e9; break;
    case 76: value = g->throttled_boost * 1e9; break;
    case 77: case 79: value = 0; break;
    case 82:
        if (g->memory_temperature < 0) return NOT_SUPPORTED;
        f->type = 1;                                                 /* NVML_VALUE_TYPE_UNSIGNED_INT */
        value = g->memory_temperature;
        break;
    case 91: f->type = 1; value = g->nvlinks; break;
    case 138: if (f->scope != 0xFFFFFFFF) return INVALID_ARGUMENT; value = floor(g->nvlink_sent / 1024); break;
    case 139: if (f->scope != 0xFFFFFFFF) return INVALID_ARGUMENT; value = floor(g->nvlink_received / 1024); break;
    case 165:
        if (f->scope >= g->nvlinks) return INVALID_ARGUMENT;
        f->type = 1;
        value = f->scope >= g->nvlinks_inactive;
        break;
    case 197: value = g->pcie_sent; break;
    case 230: f->type = 1; value = 0; break;                         /* recovery action: none */
    case 198: value = g->pcie_received; break;
    default: return NOT_SUPPORTED;
    }
    if (g->mig && (f->id == 38 || f->id == 45 || f->id == 52 || f->id == 59 || f->id == 91 || f->id == 138 || f->id == 139))
        return NOT_SUPPORTED;                                        /* no NVLink in MIG mode */
    if (g->nvlinks == 0 && (f->id == 38 || f->id == 45 || f->id == 52 || f->id == 59 || f->id == 138 || f->id == 139))
        return NOT_SUPPORTED;
    if (g->pcie_bits == 32 && (f->id == 197 || f->id == 198)) {
        f->type = 1;
        f->value = (uint64_t)value & 0xFFFFFFFF;
    } else f->value = (uint64_t)value;
    return SUCCESS;
}

int nvmlDeviceGetFieldValues(void *device, int count, struct field *fields)
{
    BEGIN_DEVICE("nvmlDeviceGetFieldValues");
    double now = now_seconds();
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "field%u", fields[i].id);        /* a rule for one field: error.field82=999 */
        fields[i].stamp = (int64_t)(now * 1e6);
        fields[i].latency = 1;
        fields[i].code = (unsigned)field_value(g, &fields[i]);
        for (unsigned k = 0; k < g->rule_count; k++)
            if (strcmp(g->rules[k].function, name) == 0) {
                if (g->rules[k].code) fields[i].code = g->rules[k].code;
                if (g->rules[k].has_raw) fields[i].value = g->rules[k].raw;
            }
    }
    return SUCCESS;
}

/* ---- activity (GPM) ------------------------------------------------------------------------------------------ */

/* A sample has the counters at that time. An instance has its share of those of its parent. */
struct gpm_sample { const struct gpu *gpu; const struct slice *slice; double at, busy; int taken; };
struct gpm_metric { unsigned id, code; double value; const char *name, *short_name, *unit; };
struct gpm_get { unsigned version, count; struct gpm_sample *older, *newer; struct gpm_metric metrics[]; };
struct gpm_support { unsigned version, supported; };

static int live_samples;   /* for tests: samples not freed */

int simulated_nvml_live_samples(void) { return __atomic_load_n(&live_samples, __ATOMIC_SEQ_CST); }

int nvmlGpmQueryDeviceSupport(void *device, struct gpm_support *out)
{
    BEGIN_DEVICE("nvmlGpmQueryDeviceSupport");
    out->supported = g->gpm > 0;
    return SUCCESS;
}

int nvmlGpmSampleAlloc(struct gpm_sample **out)
{
    BEGIN_SYSTEM("nvmlGpmSampleAlloc");
    *out = calloc(1, sizeof **out);
    __atomic_add_fetch(&live_samples, 1, __ATOMIC_SEQ_CST);
    return SUCCESS;
}

int nvmlGpmSampleFree(struct gpm_sample *sample)
{
    free(sample);
    __atomic_sub_fetch(&live_samples, 1, __ATOMIC_SEQ_CST);
    return SUCCESS;
}

static int take(const struct gpu *g, const struct slice *s, struct gpm_sample *out)
{
    if (g->gpm <= 0) return NOT_SUPPORTED;
    double now = now_seconds();
    *out = (struct gpm_sample){ g, s, now, busy_seconds(g, now - 3600, now), 1 };
    return SUCCESS;
}

int nvmlGpmSampleGet(void *device, struct gpm_sample *out)
{
    BEGIN_DEVICE("nvmlGpmSampleGet");
    NOT_IN_MIG_MODE;
    return take(g, NULL, out);
}

int nvmlGpmMigSampleGet(void *device, unsigned gpu_instance, struct gpm_sample *out)
{
    BEGIN_DEVICE("nvmlGpmMigSampleGet");
    for (unsigned i = 0; g->mig && i < g->slice_count; i++)
        if (g->slices[i].gpu_instance == gpu_instance) return take(g, &g->slices[i], out);
    return g->mig ? INVALID_ARGUMENT : NOT_SUPPORTED;
}

static int gpm_value(const struct gpm_sample *from, const struct gpm_sample *to, struct gpm_metric *m)
{
    const struct gpu *g = to->gpu;
    const struct slice *s = to->slice;
    double share = busy_seconds(g, from->at, to->at) / (to->at - from->at);
    switch (m->id) {
    case 1: m->value = s ? s->sm_activity : 100 * share; break;
    case 2: m->value = s ? s->sm_activity : g->sm_activity * share; break;
    case 3: m->value = g->sm_occupancy * share; break;
    case 5: m->value = g->tensor * share; break;
    case 10: m->value = g->dram * share; break;
    case 11: m->value = g->fp64 * share; break;
    case 12: m->value = g->fp32 * share; break;
    case 13: m->value = g->fp16 * share; break;
    case 20: case 21: m->value = g->pcie_rate * share / MIB; break;
    case 60: case 61:
        if (s) return NOT_SUPPORTED;
        m->value = g->nvlink_rate * share / MIB;
        break;
    default: return NOT_SUPPORTED;
    }
    return SUCCESS;
}

int nvmlGpmMetricsGet(struct gpm_get *get)
{
    const struct gpm_sample *from = get->older, *to = get->newer;
    if (get->version != 1 || !from || !to || !from->taken || !to->taken) return INVALID_ARGUMENT;
    if (from->gpu != to->gpu || from->slice != to->slice || to->at <= from->at) return INVALID_ARGUMENT;
    struct call call;
    int code = begin("nvmlGpmMetricsGet", (void *)to->gpu, 1, &call);
    if (code) return code;
    for (unsigned i = 0; i < get->count; i++) {
        char name[32];
        snprintf(name, sizeof name, "gpm%u", get->metrics[i].id);
        get->metrics[i].code = (unsigned)gpm_value(from, to, &get->metrics[i]);
        for (unsigned k = 0; k < call.gpu->rule_count; k++) {
            const struct rule *rule = &call.gpu->rules[k];
            if (strcmp(rule->function, name) != 0) continue;
            if (rule->code) get->metrics[i].code = rule->code;
            if (rule->has_raw) memcpy(&get->metrics[i].value, &rule->raw, sizeof rule->raw);   /* its bits: NaN, too */
        }
    }
    return SUCCESS;
}

/* ---- events (Xid) -------------------------------------------------------------------------------------------- */

struct event { void *device; uint64_t type, data; unsigned gpu_instance, compute_instance; };
struct event_set { uint64_t listens; unsigned delivered; };  /* a bit per GPU; number of delivered events */

int nvmlEventSetCreate(struct event_set **out)
{
    BEGIN_SYSTEM("nvmlEventSetCreate");
    *out = calloc(1, sizeof **out);
    (*out)->delivered = world.xid_count;
    return SUCCESS;
}

int nvmlEventSetFree(struct event_set *set)
{
    free(set);
    return SUCCESS;
}

int nvmlDeviceGetSupportedEventTypes(void *device, uint64_t *out)
{
    BEGIN_DEVICE("nvmlDeviceGetSupportedEventTypes");
    *out = 0x8 | 0x2 | 0x1;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(void *device, uint64_t types, struct event_set *set)
{
    BEGIN_DEVICE("nvmlDeviceRegisterEvents");
    if (types & 0x8) set->listens |= 1ULL << (g - world.gpus);
    return SUCCESS;
}

int nvmlEventSetWait_v2(struct event_set *set, struct event *out, unsigned milliseconds)
{
    double end = clock_seconds(CLOCK_MONOTONIC) + milliseconds / 1e3;
    for (;;) {
        BEGIN_SYSTEM("nvmlEventSetWait_v2");
        int found = 0;
        pthread_mutex_lock(&lock);
        if (set->delivered > world.xid_count) set->delivered = 0;              /* another machine */
        while (!found && set->delivered < world.xid_count) {
            unsigned gpu = world.xids[set->delivered].gpu;
            uint64_t xid = world.xids[set->delivered++].code;
            if (!(set->listens >> gpu & 1)) continue;
            *out = (struct event){ &world.gpus[gpu], 0x8, xid, 0xFFFFFFFF, 0xFFFFFFFF };
            found = 1;
        }
        for (unsigned i = 0; !found && i < world.count; i++)   /* as documented: fails if a GPU fell off the bus */
            if (set->listens >> i & 1 && is_lost(&world.gpus[i])) code = GPU_IS_LOST;
        pthread_mutex_unlock(&lock);
        if (found) return SUCCESS;
        if (code) return code;
        double left = end - clock_seconds(CLOCK_MONOTONIC);
        if (left <= 0) return TIMEOUT;
        hang(left < 0.5 ? left : 0.5);                               /* the real one sleeps until an event */
    }
}

/* ---- errors, MIG --------------------------------------------------------------------------------------------- */

int nvmlDeviceGetTotalEccErrors(void *device, unsigned type, unsigned counter, uint64_t *out)
{
    BEGIN_DEVICE("nvmlDeviceGetTotalEccErrors");
    double errors = counter == 0 ? 0 : type == 0 ? g->ecc_corrected : g->ecc_uncorrected;
    *out = call.rule->has_raw ? call.rule->raw : (uint64_t)errors;
    return SUCCESS;
}

int nvmlDeviceGetEccMode(void *device, unsigned *current, unsigned *pending)
{
    BEGIN_DEVICE("nvmlDeviceGetEccMode");
    *current = *pending = 1;
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(void *device, unsigned *correctable, unsigned *uncorrectable, unsigned *pending,
                              unsigned *failure)
{
    BEGIN_DEVICE("nvmlDeviceGetRemappedRows");
    NOT_IN_MIG_MODE;
    *correctable = call.rule->has_raw ? (unsigned)call.rule->raw : (unsigned)g->rows_correctable;
    *uncorrectable = (unsigned)g->rows_uncorrectable;
    *pending = (unsigned)g->rows_pending;
    *failure = (unsigned)g->rows_failed;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending)
{
    BEGIN_DEVICE("nvmlDeviceGetMigMode");
    *current = *pending = (unsigned)g->mig;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **out)
{
    BEGIN_DEVICE("nvmlDeviceGetMigDeviceHandleByIndex");
    for (unsigned i = 0; g->mig && i < g->slice_count; i++)
        if (g->slices[i].place == index) {
            *out = &g->slices[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetGpuInstanceById(void *device, unsigned id, void **out)
{
    BEGIN_DEVICE("nvmlDeviceGetGpuInstanceById");
    for (unsigned i = 0; i < g->slice_count; i++) {
        if (g->slices[i].gpu_instance != id) continue;
        *out = &g->slices[i];
        return SUCCESS;
    }
    return NOT_FOUND;
}

struct gpu_instance_info { void *device; unsigned id, profile, start, size; };

int nvmlGpuInstanceGetInfo(void *instance, struct gpu_instance_info *out)
{
    const struct slice *s = instance;
    BEGIN_SYSTEM("nvmlGpuInstanceGetInfo");
    if (!s || s->placement < 0) return NOT_SUPPORTED;
    *out = (struct gpu_instance_info){ s->parent, s->gpu_instance, 0, (unsigned)s->placement, 1 };
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(void *device, unsigned *out)
{
    BEGIN_EITHER("nvmlDeviceGetGpuInstanceId");
    if (!s) return INVALID_ARGUMENT;
    *out = s->gpu_instance;
    return SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(void *device, unsigned *out)
{
    BEGIN_EITHER("nvmlDeviceGetComputeInstanceId");
    if (!s) return INVALID_ARGUMENT;
    *out = s->compute_instance;
    return SUCCESS;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *device, void **out)
{
    BEGIN_EITHER("nvmlDeviceGetDeviceHandleFromMigDeviceHandle");
    if (!s) return INVALID_ARGUMENT;
    *out = g;
    return SUCCESS;
}

struct attributes { unsigned sms, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices; uint64_t memory_mb; };

int nvmlDeviceGetAttributes_v2(void *device, struct attributes *out)
{
    BEGIN_EITHER("nvmlDeviceGetAttributes_v2");
    if (!s) return NOT_SUPPORTED;
    memset(out, 0, sizeof *out);
    if (sscanf(s->profile, "%uc.%ug", &out->compute_slices, &out->gpu_slices) != 2)
        out->gpu_slices = out->compute_slices = (unsigned)atoi(s->profile);
    out->sms = 16 * out->gpu_slices;
    out->memory_mb = (uint64_t)s->memory_total;
    return SUCCESS;
}

UNSUPPORTED(nvmlDeviceGetDriverModel, unsigned *current, unsigned *pending)
UNSUPPORTED(nvmlDeviceGetDriverModel_v2, unsigned *current, unsigned *pending)
UNSUPPORTED(nvmlDeviceGetConfComputeMemSizeInfo, void *out)

/* ---- processes ----------------------------------------------------------------------------------------------- */

static unsigned process_count(const struct gpu *g) { return g->processes > g->pid_count ? g->processes : g->pid_count; }

static unsigned pid(const struct gpu *g, unsigned i) { return i < g->pid_count ? g->pids[i] : FIRST_PID + i; }

static uint64_t process_memory(const struct gpu *g) { return (uint64_t)g->memory_used * MIB / process_count(g); }

struct process { unsigned pid; uint64_t memory; unsigned gpu_instance, compute_instance; };

static int list_gpu_instance(const struct slice *s, unsigned entry_bytes, unsigned room, unsigned *count, char *out)
{
    *count = 0;
    for (unsigned k = 0; k < s->parent->slice_count; k++) {
        const struct slice *other = &s->parent->slices[k];
        for (unsigned i = 0; other->gpu_instance == s->gpu_instance && i < other->pid_count; i++, ++*count) {
            struct process entry = { other->pids[i], MIB, other->gpu_instance, other->compute_instance };
            if (*count < room && out)
                memcpy(out + (size_t)*count * entry_bytes, &entry, entry_bytes < sizeof entry ? entry_bytes : sizeof entry);
        }
    }
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}

/* The list of processes, in entries of the size that this version of the function has, or of another: some drivers write
 * longer ones than the caller has room for. */
static int list_processes(const char *function, void *device, unsigned entry_bytes, unsigned *count, char *out)
{
    BEGIN_EITHER(function);
    const struct rule *driver = system_rule(function);
    if (driver && driver->entry_bytes) entry_bytes = driver->entry_bytes;
    unsigned room = *count, there = process_count(g);
    if (s) there = s->processes > s->pid_count ? s->processes : s->pid_count;
    *count = there;
    if (call.rule->has_count) {
        *count = call.rule->count;
        return call.rule->count > 1000000000 ? INSUFFICIENT_SIZE : SUCCESS;
    }
    if (s && s->lists_others) return list_gpu_instance(s, entry_bytes, room, count, out);
    if (there == 0) return SUCCESS;
    if (room < there || !out) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++) {
        struct process entry = { s && i < s->pid_count ? s->pids[i] : s ? FIRST_PID + i : pid(g, i),
                                 (uint64_t)(s ? s->memory_used : g->memory_used) * MIB / there,
                                 s ? s->gpu_instance : 0xFFFFFFFF, s ? s->compute_instance : 0xFFFFFFFF };
        if (call.rule->has_raw) entry.memory = call.rule->raw;
        memset(out + (size_t)i * entry_bytes, 0, entry_bytes);
        memcpy(out + (size_t)i * entry_bytes, &entry, entry_bytes < sizeof entry ? entry_bytes : sizeof entry);
    }
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *out)
{
    return list_processes("nvmlDeviceGetComputeRunningProcesses_v3", device, sizeof(struct process), count, out);
}

int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, void *out)
{
    return list_processes("nvmlDeviceGetComputeRunningProcesses_v2", device, sizeof(struct process), count, out);
}

int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, void *out)
{
    return list_processes("nvmlDeviceGetComputeRunningProcesses", device, 16, count, out);
}

/* Clients of the multi-process service, each with MPS_CLIENT_BYTES; the list of processes has their server only. */
static int list_clients(const char *function, void *device, unsigned entry_bytes, unsigned *count, char *out)
{
    BEGIN_EITHER(function);
    const struct rule *driver = system_rule(function);
    if (driver && driver->entry_bytes) entry_bytes = driver->entry_bytes;
    unsigned room = *count, there = s ? 0 : g->mps_pid_count;
    *count = call.rule->has_count ? call.rule->count : there;
    if (call.rule->has_count) return call.rule->count > 1000000000 ? INSUFFICIENT_SIZE : SUCCESS;
    if (there && (room < there || !out)) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++) {
        struct process entry = { g->mps_pids[i], call.rule->has_raw ? call.rule->raw : MPS_CLIENT_BYTES,
                                 0xFFFFFFFF, 0xFFFFFFFF };
        memset(out + (size_t)i * entry_bytes, 0, entry_bytes);
        memcpy(out + (size_t)i * entry_bytes, &entry, entry_bytes < sizeof entry ? entry_bytes : sizeof entry);
    }
    return SUCCESS;
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *device, unsigned *count, void *out)
{
    return list_clients("nvmlDeviceGetMPSComputeRunningProcesses_v3", device, sizeof(struct process), count, out);
}

int nvmlDeviceGetMPSComputeRunningProcesses_v2(void *device, unsigned *count, void *out)
{
    return list_clients("nvmlDeviceGetMPSComputeRunningProcesses_v2", device, sizeof(struct process), count, out);
}

int nvmlDeviceGetMPSComputeRunningProcesses(void *device, unsigned *count, void *out)
{
    return list_clients("nvmlDeviceGetMPSComputeRunningProcesses", device, 16, count, out);
}

static int no_processes(void *device, const char *function, unsigned *count)
{
    BEGIN_DEVICE(function);
    *count = 0;
    return SUCCESS;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process *out)
{
    (void)out;
    return no_processes(device, "nvmlDeviceGetGraphicsRunningProcesses_v3", count);
}

int nvmlDeviceGetGraphicsRunningProcesses_v2(void *device, unsigned *count, struct process *out)
{
    return nvmlDeviceGetGraphicsRunningProcesses_v3(device, count, out);
}

struct detail { unsigned pid; uint64_t memory; unsigned gpu_instance, compute_instance; uint64_t protected_memory; };
struct details { unsigned version, mode, count; struct detail *entries; };

int nvmlDeviceGetRunningProcessDetailList(void *device, struct details *out)
{
    BEGIN_DEVICE("nvmlDeviceGetRunningProcessDetailList");
    unsigned room = out->count;
    out->count = out->mode == 0 ? process_count(g) : 0;
    if (out->count == 0) return SUCCESS;
    if (room < out->count || !out->entries) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < out->count; i++)
        out->entries[i] = (struct detail){ pid(g, i), process_memory(g), 0xFFFFFFFF, 0xFFFFFFFF, 0 };
    return SUCCESS;
}

struct process_sample { unsigned pid; uint64_t stamp; unsigned sm, memory, encoder, decoder; };

int nvmlDeviceGetProcessUtilization(void *device, struct process_sample *out, unsigned *count, uint64_t seen)
{
    BEGIN_DEVICE("nvmlDeviceGetProcessUtilization");
    NOT_IN_MIG_MODE;
    (void)seen;
    unsigned room = *count, processes = process_count(g);
    if (processes == 0) return NOT_FOUND;
    *count = processes;
    if (!out || room < processes) return INSUFFICIENT_SIZE;
    unsigned share = sample_percent(g, last_tick()) / processes;
    for (unsigned i = 0; i < processes; i++)
        out[i] = (struct process_sample){ pid(g, i), sample_stamp(g, last_tick()), share, share / 9, 0, 0 };
    return SUCCESS;
}
