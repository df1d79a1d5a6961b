/*
 * A stand-in for NVIDIA's libnvidia-ml.so.1: 0 to 64 simulated GPUs, steered at run time by a plain text file.
 *
 * The file named by SIMULATED_NVML_CONTROL is read again whenever it changes. control.py writes it; one statement a line:
 *
 *     driver 590.48.01          version that the driver reports
 *     gpus 8                    number of GPUs
 *     loaded 0                  the kernel module is not there: every call fails
 *     loads 2                   times the module was loaded; a session opened under another number is dead
 *     now 1700000000.5          freezes the simulated wall clock at this time (seconds since 1970)
 *     clock_offset -3600        added to the time stamps of samples from now on: a step of the wall clock
 *     delay_us 40               each call keeps the CPU this long
 *     error FUNCTION CODE       the function returns this code (for calls that have no GPU, too)
 *     gpu 3 key=value ...       settings of GPU 3; "gpu *" sets all. Keys: see apply().
 *
 * Where a setting is left out, the GPU behaves like an H100 80GB: power, temperature and clocks follow the utilization.
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
       DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
enum { MAX_GPUS = 64, MAX_RULES = 48, MAX_SEGMENTS = 16, MAX_PIDS = 64, NAME = 72 };
enum { SAMPLES_A_SECOND = 6, BUFFER = 100 };  /* the driver's period is 1/6 s; it keeps about a hundred samples */
enum { NVLINKS = 18, FIRST_PID = 4100000 };
#define MIB (1024ULL * 1024)

/* What one function does on one GPU when it is not to behave. */
struct rule {
    char function[NAME];
    unsigned code;     /* 0: no error */
    int has_raw;
    uint64_t raw;      /* the number it returns instead of the true one */
    double hang;       /* seconds */
};

/* The load since a moment. Kept as history, so that the sample buffer tells what was, not what is. */
struct segment { double since, level, period, duty, clock_offset; };

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
    uint64_t throttle;
    int lost, missing, mig, dry_when_idle;
    double delay_us;
    unsigned processes, pid_count, pids[MAX_PIDS];
    unsigned rule_count;
    struct rule rules[MAX_RULES];
    /* What outlives a change of the file. */
    unsigned segment_count;
    struct segment segments[MAX_SEGMENTS];
    double joules, joules_at;
    unsigned lost_in;                    /* session that saw it lost: only a later one can have it back */
};

static struct {
    char driver[80];
    unsigned count;
    int loaded;
    long loads;
    double now;        /* 0: the real clock */
    double clock_offset, delay_us;
    struct gpu gpus[MAX_GPUS];
    struct gpu system; /* rules for calls that have no GPU */
} world;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
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

/* Integral of the busy ratio from a to b, in seconds. The first segment reaches back for ever. */
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

/* The sample that ended at tick/6 seconds: what the GPU did in the 1/6 s before. */
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
    NUMBER(rows_correctable), NUMBER(rows_uncorrectable), NUMBER(delay_us),
#undef NUMBER
};

/* A mistake in a test's control file must not pass as a healthy GPU. */
static void refuse(const char *what)
{
    fprintf(stderr, "simulated NVML: control file: do not understand '%s'\n", what);
    abort();
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
    } else if (strncmp(key, "error.", 6) == 0) rule_for(g, key + 6)->code = (unsigned)atoi(value);
    else if (strncmp(key, "hang.", 5) == 0) rule_for(g, key + 5)->hang = atof(value);
    else if (strncmp(key, "raw.", 4) == 0) {
        struct rule *rule = rule_for(g, key + 4);
        rule->has_raw = 1;
        rule->raw = strtoull(value, NULL, 0);
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

static void statement(char *line)
{
    char *rest = line + strcspn(line, " \t");
    if (*rest) *rest++ = 0;
    rest += strspn(rest, " \t");
    if (strcmp(line, "gpu") == 0) gpu_statement(rest);
    else if (strcmp(line, "gpus") == 0) world.count = (unsigned)atoi(rest) > MAX_GPUS ? MAX_GPUS : (unsigned)atoi(rest);
    else if (strcmp(line, "driver") == 0) snprintf(world.driver, sizeof world.driver, "%s", rest);
    else if (strcmp(line, "loaded") == 0) world.loaded = atoi(rest);
    else if (strcmp(line, "loads") == 0) world.loads = atol(rest);
    else if (strcmp(line, "now") == 0) world.now = atof(rest);
    else if (strcmp(line, "clock_offset") == 0) world.clock_offset = atof(rest);
    else if (strcmp(line, "delay_us") == 0) world.delay_us = atof(rest);
    else if (strcmp(line, "error") == 0) {
        char *code = rest + strcspn(rest, " \t");
        if (!*code) refuse(rest);
        *code++ = 0;
        rule_for(&world.system, rest)->code = (unsigned)atoi(code);
    } else refuse(line);
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
    /* Energy up to here was used under the old settings. */
    double before = now_seconds();
    for (unsigned i = 0; i < MAX_GPUS; i++) add_energy(&world.gpus[i], before);
    snprintf(world.driver, sizeof world.driver, "590.48.01");
    world.count = 1;
    world.loaded = 1;
    world.loads = 1;
    world.now = world.clock_offset = world.delay_us = 0;
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

/* Called with the lock held. A stat costs about a microsecond: once a millisecond, or when the caller starts anew. */
static void refresh(int at_once)
{
    static double checked;
    static int known;
    static struct stat seen;
    static char seen_path[4096];
    double now = clock_seconds(CLOCK_MONOTONIC);
    if (known && !at_once && now - checked < 1e-3) return;
    checked = now;
    const char *path = getenv("SIMULATED_NVML_CONTROL");
    struct stat found;
    memset(&found, 0, sizeof found);
    FILE *file = NULL;
    if (path && stat(path, &found) != 0) memset(&found, 0, sizeof found);
    if (known && found.st_ino == seen.st_ino && found.st_size == seen.st_size
        && found.st_mtim.tv_sec == seen.st_mtim.tv_sec && found.st_mtim.tv_nsec == seen.st_mtim.tv_nsec) return;
    if (path && found.st_ino) file = fopen(path, "r");
    if (strcmp(seen_path, path ? path : "") != 0) {   /* another file is another machine: it has no past */
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
    /* A sleep is too coarse for a few microseconds, and a real call keeps the CPU as well. */
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

struct call { struct gpu *gpu; const struct rule *rule; };

static int begin(const char *function, void *device, int needs_device, struct call *call)
{
    static const struct rule none;
    struct gpu *g = device;
    int code = SUCCESS;
    pthread_mutex_lock(&lock);
    refresh(strcmp(function, "nvmlDeviceGetCount_v2") == 0);
    call->gpu = g;
    call->rule = &none;
    if (needs_device && (g < world.gpus || g >= world.gpus + MAX_GPUS)) code = INVALID_ARGUMENT;
    else {
        struct gpu *owner = needs_device ? g : &world.system;
        for (unsigned i = 0; i < owner->rule_count; i++)
            if (strcmp(owner->rules[i].function, function) == 0) call->rule = &owner->rules[i];
        if (!world.loaded) code = DRIVER_NOT_LOADED;
        else if (sessions == 0 || session_loads != world.loads) code = UNINITIALIZED;
        else if (needs_device && (g->missing || is_lost(g))) code = GPU_IS_LOST;
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

static int text(char *out, unsigned room, const char *value)
{
    return snprintf(out, room, "%s", value) < (int)room ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlSystemGetDriverVersion(char *out, unsigned room)
{
    BEGIN_SYSTEM("nvmlSystemGetDriverVersion");
    return text(out, room, world.driver);
}

int nvmlSystemGetNVMLVersion(char *out, unsigned room)
{
    BEGIN_SYSTEM("nvmlSystemGetNVMLVersion");
    return text(out, room, "13.590.48.01");
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
    return SUCCESS;
}

static int hand_out(struct gpu *g, void **out)
{
    if (is_lost(g)) return GPU_IS_LOST;
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
    BEGIN_DEVICE("nvmlDeviceGetName");
    return text(out, room, g->name);
}

int nvmlDeviceGetUUID(void *device, char *out, unsigned room)
{
    BEGIN_DEVICE("nvmlDeviceGetUUID");
    return text(out, room, g->uuid);
}

int nvmlDeviceGetSerial(void *device, char *out, unsigned room)
{
    BEGIN_DEVICE("nvmlDeviceGetSerial");
    char serial[32];
    snprintf(serial, sizeof serial, "16500%08d", (int)(g - world.gpus));
    return text(out, room, serial);
}

struct pci { char legacy[16]; unsigned domain, bus, device, device_id, subsystem_id; char bus_id[32]; };

int nvmlDeviceGetPciInfo_v3(void *device, struct pci *out)
{
    BEGIN_DEVICE("nvmlDeviceGetPciInfo_v3");
    memset(out, 0, sizeof *out);
    sscanf(g->bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    out->device_id = 0x233010DE;
    out->subsystem_id = 0x16C110DE;
    snprintf(out->legacy, sizeof out->legacy, "%.12s", g->bus_id + 4);
    snprintf(out->bus_id, sizeof out->bus_id, "%.31s", g->bus_id);
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

/* In MIG mode the driver tells no utilization of the whole GPU. */
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
    if (!out) {                             /* the size query tells the size of the buffer, whatever is new in it */
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
    BEGIN_DEVICE("nvmlDeviceGetMemoryInfo_v2");
    out->total = (uint64_t)g->memory_total * MIB;
    out->reserved = (uint64_t)g->memory_reserved * MIB;
    out->used = call.rule->has_raw ? call.rule->raw : (uint64_t)g->memory_used * MIB;
    out->free = out->total - out->reserved - (uint64_t)g->memory_used * MIB;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory_v1 *out)
{
    BEGIN_DEVICE("nvmlDeviceGetMemoryInfo");
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

struct field { unsigned id, scope; int64_t stamp, latency; unsigned type, code; uint64_t value; };

int nvmlDeviceGetFieldValues(void *device, int count, struct field *fields)
{
    BEGIN_DEVICE("nvmlDeviceGetFieldValues");
    double now = now_seconds();
    for (int i = 0; i < count; i++) {
        fields[i].stamp = (int64_t)(now * 1e6);
        fields[i].latency = 1;
        fields[i].type = 3;                                          /* NVML_VALUE_TYPE_UNSIGNED_LONG_LONG */
        fields[i].code = g->mig ? NOT_SUPPORTED : SUCCESS;
        if (fields[i].id == 91) {                                    /* number of NVLinks */
            fields[i].type = 1;
            fields[i].value = NVLINKS;
        } else if (fields[i].id == 138 || fields[i].id == 139) {     /* KiB sent and received over one link */
            fields[i].value = (uint64_t)(2e6 * fmod(now, 1e6));
        } else fields[i].code = NOT_SUPPORTED;
    }
    return SUCCESS;
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
    *pending = *failure = 0;
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
    (void)index;
    (void)out;
    return NOT_FOUND;
}

UNSUPPORTED(nvmlDeviceGetGpuInstanceId, unsigned *out)
UNSUPPORTED(nvmlDeviceGetComputeInstanceId, unsigned *out)
UNSUPPORTED(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, void **out)
UNSUPPORTED(nvmlDeviceGetDriverModel, unsigned *current, unsigned *pending)
UNSUPPORTED(nvmlDeviceGetDriverModel_v2, unsigned *current, unsigned *pending)
UNSUPPORTED(nvmlDeviceGetConfComputeMemSizeInfo, void *out)

/* ---- processes ----------------------------------------------------------------------------------------------- */

static unsigned process_count(const struct gpu *g) { return g->processes > g->pid_count ? g->processes : g->pid_count; }

static unsigned pid(const struct gpu *g, unsigned i) { return i < g->pid_count ? g->pids[i] : FIRST_PID + i; }

static uint64_t process_memory(const struct gpu *g) { return (uint64_t)g->memory_used * MIB / process_count(g); }

struct process { unsigned pid; uint64_t memory; unsigned gpu_instance, compute_instance; };

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *out)
{
    BEGIN_DEVICE("nvmlDeviceGetComputeRunningProcesses_v3");
    unsigned room = *count;
    *count = process_count(g);
    if (*count == 0) return SUCCESS;
    if (room < *count || !out) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++)
        out[i] = (struct process){ pid(g, i), process_memory(g), 0xFFFFFFFF, 0xFFFFFFFF };
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, struct process *out)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, out);
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

int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *device, unsigned *count, struct process *out)
{
    (void)out;
    return no_processes(device, "nvmlDeviceGetMPSComputeRunningProcesses_v3", count);
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
