/* report - tables of what was measured, and of how it compares. */
#include "driver.h"

#include <string.h>

/* 0: not measured. */
static double figure(const struct bench *b, const char *row, const char *engine)
{
    for (int r = 0; r < b->set->row_count; r++) {
        if (strcmp(b->set->rows[r].id, row) != 0)
            continue;
        for (int i = 0; i < b->columns; i++) {
            if (strcmp(b->column[i].engine->name, engine) == 0)
                return b->set->rows[r].result[i].median / b->set->rows[r].scale;
        }
    }
    return 0;
}

static double ratio(const struct bench *b, const struct comparison *c)
{
    double top = figure(b, c->row, c->engine);
    double bottom = c->over ? figure(b, c->over_row, c->over) : 1;

    return bottom > 0 ? top / bottom : 0;
}

static bool reached(const struct comparison *c, double is, double asked)
{
    return c->sense == AT_MOST ? is <= asked : is >= asked;
}

int report_missed(const struct bench *b)
{
    int missed = 0;

    for (int i = 0; i < b->set->comparison_count; i++) {
        const struct comparison *c = &b->set->comparisons[i];
        double is = ratio(b, c);
        missed += is > 0 && c->goal > 0 && !reached(c, is, c->goal);
    }
    return missed;
}

/* ---- for people ------------------------------------------------------- */

static bool measured(const struct bench *b, const struct row *r)
{
    for (int i = 0; i < b->columns; i++) {
        if (r->result[i].rounds)
            return true;
    }
    return false;
}

static void print_head(FILE *to, const struct bench *b, const struct report_head *h)
{
    fprintf(to, "%llu records of %d-byte keys and %d-byte values, medians of %d rounds\n",
            (unsigned long long)b->entries, BENCH_KEY_BYTES, BENCH_VALUE_BYTES, b->rounds);
    fprintf(to, "%s; %s; %s in %s\n", h->processor, h->kernel, h->file_system, h->dir);
    if (h->load_before > 0.5 || h->load_after > 1.5)
        fprintf(to, "load average %.1f before and %.1f after: others were at work, expect noise\n",
                h->load_before, h->load_after);
    if (b->cpu_time)
        fputs("what waits for no disk by CPU time, the rest by the clock on the wall\n", to);
    for (int i = 0; i < b->columns; i++) {
        const struct bench_engine *e = b->column[i].engine;
        const char *version = e->version ? e->version() : "";
        fprintf(to, "%-9s%s%s%s\n", e->name, version, *version ? ": " : "", e->setup);
    }
}

static void print_results(FILE *to, const struct bench *b)
{
    fprintf(to, "\n%-40s", "");
    for (int i = 0; i < b->columns; i++)
        fprintf(to, "%10s", b->column[i].engine->name);
    fputc('\n', to);
    for (int r = 0; r < b->set->row_count; r++) {
        const struct row *row = &b->set->rows[r];
        if (!measured(b, row))
            continue;
        fprintf(to, "%-37s%3s", row->text, row->unit);
        for (int i = 0; i < b->columns; i++) {
            const struct result *x = &row->result[i];
            if (x->rounds)
                fprintf(to, row->unit[0] ? "%10.1f" : "%10.3f", x->median / row->scale);
            else
                fprintf(to, "%10s", "");
        }
        fputc('\n', to);
    }
}

static void print_asked(FILE *to, const struct comparison *c, double is, double asked)
{
    if (asked > 0)
        fprintf(to, "  %s %6.2f %-6s", c->sense == AT_MOST ? "<=" : ">=", asked,
                reached(c, is, asked) ? "ok" : "missed");
    else
        fprintf(to, "%18s", "");
}

static void print_comparisons(FILE *to, const struct bench *b)
{
    fprintf(to, "\n%-43s%9s  %-16s  %s\n", "", "is", "goal", "aim of the design");
    for (int i = 0; i < b->set->comparison_count; i++) {
        const struct comparison *c = &b->set->comparisons[i];
        double is = ratio(b, c);
        if (!(is > 0))
            continue;
        fprintf(to, "%-43s%9.2f", c->text, is);
        print_asked(to, c, is, c->goal);
        print_asked(to, c, is, c->aim);
        fputc('\n', to);
    }
}

void report_print(FILE *to, const struct bench *b, const struct report_head *head)
{
    print_head(to, b, head);
    print_results(to, b);
    print_comparisons(to, b);
}

/* ---- for programs ----------------------------------------------------- */

static void json_string(FILE *to, const char *s)
{
    fputc('"', to);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            fputc('\\', to);
        if ((unsigned char)*s >= ' ')
            fputc(*s, to);
    }
    fputc('"', to);
}

static void json_member(FILE *to, const char *name, const char *value)
{
    fprintf(to, "  \"%s\": ", name);
    json_string(to, value);
    fputs(",\n", to);
}

static void json_row(FILE *to, const struct bench *b, const struct row *r)
{
    const char *between = "";

    fprintf(to, "    \"%s\": {", r->id);
    for (int i = 0; i < b->columns; i++) {
        const struct result *x = &r->result[i];
        if (!x->rounds)
            continue;
        fprintf(to, "%s\n      \"%s\": {\"median\": %.4g, \"rounds\": [", between,
                b->column[i].engine->name, x->median);
        for (int k = 0; k < x->rounds; k++)
            fprintf(to, "%s%.4g", k ? ", " : "", x->round[k]);
        fputs("]}", to);
        between = ",";
    }
    fputs("\n    }", to);
}

static void json_comparison(FILE *to, const struct comparison *c, double is)
{
    const char *text = c->text + strspn(c->text, " ");

    fputs("    {\"what\": ", to);
    json_string(to, text);
    fprintf(to, ", \"sense\": \"%s\", \"is\": %.4g", c->sense == AT_MOST ? "at most" : "at least",
            is);
    if (c->goal > 0)
        fprintf(to, ", \"goal\": %g, \"ok\": %s", c->goal,
                reached(c, is, c->goal) ? "true" : "false");
    if (c->aim > 0)
        fprintf(to, ", \"aim\": %g", c->aim);
    fputc('}', to);
}

void report_json(FILE *to, const struct bench *b, const struct report_head *h)
{
    const char *between = "";

    fputs("{\n", to);
    json_member(to, "processor", h->processor);
    json_member(to, "kernel", h->kernel);
    json_member(to, "file_system", h->file_system);
    json_member(to, "clock_of_gets", b->cpu_time ? "cpu" : "wall");
    fprintf(to, "  \"load_averages\": [%.2f, %.2f],\n  \"entries\": %llu,\n  \"rounds\": %d,\n",
            h->load_before, h->load_after, (unsigned long long)b->entries, b->rounds);
    fputs("  \"engines\": {", to);
    for (int i = 0; i < b->columns; i++, between = ", ") {
        const struct bench_engine *e = b->column[i].engine;
        fprintf(to, "%s\"%s\": ", between, e->name);
        json_string(to, e->version ? e->version() : "");
    }
    fputs("},\n  \"rows\": {\n", to);
    between = "";
    for (int r = 0; r < b->set->row_count; r++) {
        if (!measured(b, &b->set->rows[r]))
            continue;
        fputs(between, to);
        json_row(to, b, &b->set->rows[r]);
        between = ",\n";
    }
    fputs("\n  },\n  \"comparisons\": [\n", to);
    between = "";
    for (int i = 0; i < b->set->comparison_count; i++) {
        double is = ratio(b, &b->set->comparisons[i]);
        if (!(is > 0))
            continue;
        fputs(between, to);
        json_comparison(to, &b->set->comparisons[i], is);
        between = ",\n";
    }
    fputs("\n  ]\n}\n", to);
}
