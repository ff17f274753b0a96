/* story.c - see story.h. */
#include "seam/story.h"

#include "seam/check.h"
#include "seam/disk.h"
#include "seam/record.h"
#include "seam/replay.h"

#include <stdlib.h>

void story_record(struct story *s, const struct plan *p)
{
    record_stop(); /* where an earlier story has failed */
    if (!s->log) {
        s->log = log_new();
        s->o = oracle_new();
    }
    log_reset(s->log);
    s->root = tmp_dir(TMP_FAST);
    record_start(s->log, s->root);
    plan_oracle(p, test_seed(), s->o);
    s->w = plan_work(p, s->root, s->log, s->o);
}

void story_begin(struct story *s, const struct plan *p, int32_t ms)
{
    story_record(s, p);
    s->w.deadline_ms = ms;
    s->a = actor_start(&s->w);
    actor_must(&s->a, act_open, 0, KIST_OK);
}

void story_end(struct story *s)
{
    actor_kill(&s->a);
    actor_kill(&s->b);
    record_stop();
    tmp_remove(s->root);
    free(s->root);
}

static void look_at_the_disk(struct story *s, struct work *w)
{
    struct disk *d = disk_new(s->log);
    struct world world;
    struct content seen;

    world_init(&world, s->log);
    disk_run(d, log_count(s->log));
    disk_pick(d, DISK_LOST, 0);
    disk_world(d, &world);
    replay_build(&world, w->root);
    replay_place(2, 1);
    if (!check_writing(w, &seen) || !content_is(s->o, &s->o->now, &seen))
        test_fail(__FILE__, __LINE__, "durable",
                  check_why[0] ? check_why : check_difference(s->o, &s->o->now, &seen));
    work_close_quietly(w);
    world_free(&world);
    disk_free(d);
}

void story_must_be_durable(struct story *s)
{
    struct work w = s->w;

    record_stop();
    replay_identities();
    w.root = tmp_dir(TMP_FAST);
    look_at_the_disk(s, &w);
}
