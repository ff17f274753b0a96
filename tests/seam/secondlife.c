/* secondlife.c - see secondlife.h. */
#include "seam/secondlife.h"

#include "seam/check.h"
#include "seam/record.h"

void secondlife_init(struct secondlife *s)
{
    if (!s->log) {
        s->log = log_new();
        s->o = oracle_new();
    }
    log_reset(s->log);
}

static void begin_oracle(struct secondlife *s, const struct plan *p, const struct oracle *o)
{
    plan_oracle(p, o->seed, s->o);
    s->o->version = o->version + 1000; /* its versions are none of the first life's */
}

bool secondlife_live(struct secondlife *s, const struct plan *p, const struct oracle *o,
                     const char *root, uint64_t seed, void (*script)(struct work *w))
{
    struct work w;
    struct content base;
    bool well;

    secondlife_init(s);
    begin_oracle(s, p, o);
    w = plan_work(p, root, s->log, s->o);
    w.rng.state = seed;
    if (!check_readonly(&w, &s->before))
        return false;
    s->moment = check_has_moment ? check_moment : s->before;
    record_start(s->log, root);
    s->start = log_count(s->log);
    well = check_writing(&w, &base);
    if (well) {
        s->opened = log_count(s->log);
        oracle_reset(s->o, &base);
        script(&w);
    }
    record_stop();
    work_close_quietly(&w); /* not recorded: the log ends as if it were killed */
    return well;
}

bool secondlife_allows(const struct secondlife *s, uint64_t cut, bool power_cut,
                       const struct content *seen)
{
    struct span span = oracle_span(s->o, cut);

    /* Until it was over, the recovery had promised nothing: what was there
     * before is as good, and so is a bank that was about to be made. */
    if (cut <= s->opened && content_is(s->o, &s->before, seen))
        return true;
    if (cut <= s->opened && !s->before.exists && content_count(s->o, seen) == 0)
        return true;
    return oracle_match(s->o, power_cut ? span.durable : span.acked, span.begun, seen) >= 0;
}

bool secondlife_allows_moment(const struct secondlife *s, uint64_t cut, bool power_cut)
{
    return !check_has_moment || (cut <= s->opened && content_is(s->o, &s->moment, &check_moment)) ||
           secondlife_allows(s, cut, power_cut, &check_moment);
}
