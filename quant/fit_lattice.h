/* The search of the IQ1, IQ2 and IQ3 types, included by fit_search.h: each index of a block stands for a
 * point of a lattice, several elements at once, so that codes cannot be rounded one by one.
 *
 * With a sub-block's scale t the squared error of a point p is Σw(x − t p)² = Σwx² − 2t Σwxp + t² Σwp², and
 * the two sums do not depend on t: they are made once for all points (a lane each), after which a trial of t
 * costs two operations per point. The best scale for the points found is Σa / Σb over their sums.
 *
 * Signs are those of x. Where only seven of eight are stored and the number of negative ones must be even,
 * the element that matters least, by w x², takes the wrong one. */

enum { GRID_MAX = 2048, GROUPS_MAX = 8 };

/* What all points give for one group of elements: Σwxp, Σwp² and, for lattices with a shift, Σwp. */
struct sums {
    float a[GRID_MAX], b[GRID_MAX], c[GRID_MAX];
    float wx, w; /* Σwx, Σw */
};

INLINE void make_sums(struct sums *s, const struct lattice *l, const float *x, const float *w)
{
    float wx[8];
    s->wx = s->w = 0;
    for (int i = 0; i < l->len; i++) {
        wx[i] = w[i] * x[i];
        s->wx += wx[i];
        s->w += w[i];
    }
    for (int k = 0; k < l->n; k += LANES) {
        v8 a = {0}, b = {0}, c = {0};
        for (int i = 0; i < l->len; i++) {
            v8 p = load(l->points + i * l->n + k), wp = w[i] * p;
            a += wx[i] * p;
            b += wp * p;
            c += wp;
        }
        memcpy(s->a + k, &a, sizeof a);
        memcpy(s->b + k, &b, sizeof b);
        if (l->shift != SHIFT_NONE)
            memcpy(s->c + k, &c, sizeof c);
    }
}

/* A group's best point for the scale t, its elements shifted by `shift`, and its Σwxp and Σwp², shifted too.
 */
struct nearest_point {
    int index;
    float a, b;
};

INLINE struct nearest_point nearest_point(const struct sums *s, int n, float t, float shift)
{
    v8 best = all(INFINITY), at = {0}, k8 = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int k = 0; k < n; k += LANES, k8 += (float)LANES) {
        v8 b = load(s->b + k), cost;
        if (shift != 0)
            b += (shift + shift) * load(s->c + k);
        cost = t * b - 2 * load(s->a + k);
        m8 less = cost < best;
        best = pick(less, cost, best);
        at = pick(less, k8, at);
    }
    int found = 0;
    for (int l = 1; l < LANES; l++)
        if (best[l] < best[found] || (best[l] == best[found] && at[l] < at[found]))
            found = l;
    const int k = (int)at[found];
    float b = s->b[k];
    if (shift != 0)
        b += (shift + shift) * s->c[k] + shift * shift * s->w;
    return (struct nearest_point){k, s->a[k] + shift * s->wx, b};
}

/* A sub-block at scale t: its points and shifts into b (from group g on), Σwxp and Σwp². */
struct sub_fit {
    float a, b;
};

INLINE struct sub_fit try_sub(struct lattice_block *b, const struct lattice *l, const struct sums *s, int g,
                              float t)
{
    const int n_groups = l->sub_len / l->len, n_shifts = l->shift == SHIFT_NONE ? 1 : 2;
    struct nearest_point near[2][GROUPS_MAX];
    float cost[2] = {0, 0};
    for (int k = 0; k < n_shifts; k++)
        for (int i = 0; i < n_groups; i++) {
            const float shift = l->shift == SHIFT_NONE ? 0 : k ? -0.125f : 0.125f;
            near[k][i] = nearest_point(&s[i], l->n, t, shift);
            cost[k] += t * near[k][i].b - 2 * near[k][i].a;
        }
    struct sub_fit f = {0, 0};
    for (int i = 0; i < n_groups; i++) {
        int down = n_shifts == 2 && cost[1] < cost[0];
        if (l->shift == SHIFT_BY_GROUP)
            down = t * near[1][i].b - 2 * near[1][i].a < t * near[0][i].b - 2 * near[0][i].a;
        b->index[g + i] = (uint16_t)near[down][i].index;
        b->down[g + i] = down != 0;
        f.a += near[down][i].a;
        f.b += near[down][i].b;
    }
    return f;
}

/* The scale for which a sub-block is best. */
INLINE float search_sub(struct lattice_block *b, const struct lattice *l, const struct sums *s, float extreme)
{
    static const float factors[] = {0.55f, 0.68f, 0.81f, 0.94f, 1.07f, 1.2f, 1.7f};
    enum { N = sizeof factors / sizeof factors[0] + 1 };
    float best = 0, best_t = 0;
    if (extreme < 0x1p-60f)
        return 0;
    for (int k = 0; k < N + 2; k++) { /* the last two: where the best so far points to */
        float t = k < N - 1 ? extreme / l->largest * factors[k] : k == N - 1 ? extreme / l->least : best_t;
        if (t <= 0)
            break;
        struct sub_fit f = try_sub(b, l, s, 0, t);
        if (f.a > 0 && f.b > 0 && f.a * f.a / f.b > best) {
            best = f.a * f.a / f.b;
            best_t = f.a / f.b;
        }
    }
    return best_t;
}

/* Signs of x into b; x becomes what the points, which have none, are to come close to. */
INLINE void take_signs(struct lattice_block *b, const struct lattice *l, float *x, const float *w)
{
    for (int g = 0; g < QK_K / 8; g++) {
        unsigned signs = 0;
        int least = 0, odd = 0;
        for (int i = 0; i < 8; i++) {
            const float *p = x + 8 * g + i, *q = x + 8 * g + least;
            if (*p < 0) {
                signs |= 1u << i;
                odd ^= 1;
            }
            if (w[8 * g + i] * *p * *p < w[8 * g + least] * *q * *q)
                least = i;
        }
        for (int i = 0; i < 8; i++)
            x[8 * g + i] = fabsf(x[8 * g + i]);
        if (odd && l->even_signs) {
            signs ^= 1u << least;
            x[8 * g + least] = -x[8 * g + least];
        }
        b->signs[g] = (uint8_t)signs;
    }
}

static void fit_lattice_block(struct lattice_block *b, const float *x, const float *w,
                              const struct lattice *l)
{
    enum { LATTICE_ROUNDS = 2 };
    struct wide wide;
    struct sums sums[GROUPS_MAX];
    float t[N_SUB_MAX], t_max = 0;
    const int n_subs = QK_K / l->sub_len, n_groups = l->sub_len / l->len;
    *b = (struct lattice_block){0};
    if (!widen(&wide, x, w, QK_K)) {
        b->d = NAN;
        return;
    }
    if (l->shift == SHIFT_NONE)
        take_signs(b, l, wide.x, wide.w);
    for (int i = 0; i < QK_K / l->len && l->shift != SHIFT_NONE; i++)
        b->index[i] = (uint16_t)(l->n - 1); /* all 1: with a scale of 0 these make +0 */
    struct lattice_block trial = *b;
    for (int j = 0; j < n_subs; j++) {
        float extreme = largest(wide.x + j * l->sub_len, l->sub_len);
        for (int i = 0; i < n_groups; i++)
            make_sums(&sums[i], l, wide.x + j * l->sub_len + i * l->len,
                      wide.w + j * l->sub_len + i * l->len);
        t[j] = search_sub(&trial, l, sums, extreme);
        t_max = t[j] > t_max ? t[j] : t_max;
    }
    float best = 0; /* of the error, beyond what a scale of 0 leaves: no point is 0 */
    trial.d = stored_scale(t_max / (float)(2 * l->scale_max + 1) / l->unit, wide.exponent);
    for (int round = 0; round < LATTICE_ROUNDS && trial.d > 0; round++) {
        const float d = in_units(trial.d, wide.exponent) * l->unit;
        float cost = 0, sa = 0, sb = 0;
        for (int j = 0; j < n_subs; j++) {
            struct sub_fit found = {0, 0};
            float least = INFINITY;
            struct lattice_block sub = trial;
            const int at = (int)clampf((t[j] / d - 1) / 2, 0, (float)l->scale_max);
            for (int i = 0; i < n_groups; i++)
                make_sums(&sums[i], l, wide.x + j * l->sub_len + i * l->len,
                          wide.w + j * l->sub_len + i * l->len);
            for (int s = at; s <= at + 1 && s <= l->scale_max; s++) {
                const float scale = d * (float)(2 * s + 1);
                struct sub_fit f = try_sub(&sub, l, sums, j * n_groups, scale);
                float c = scale * scale * f.b - 2 * scale * f.a;
                if (!(c < least)) /* not even a number: the scale is far too large */
                    continue;
                least = c;
                found = f;
                trial.scale[j] = (uint8_t)s;
                for (int i = j * n_groups; i < (j + 1) * n_groups; i++) {
                    trial.index[i] = sub.index[i];
                    trial.down[i] = sub.down[i];
                }
            }
            const float steps = (float)(2 * trial.scale[j] + 1);
            cost += least;
            sa += steps * found.a;
            sb += steps * steps * found.b;
        }
        if (!(cost < best))
            break;
        best = cost;
        *b = trial;
        trial.d = sa > 0 && sb > 0 ? stored_scale(sa / sb / l->unit, wide.exponent) : 0;
    }
}
