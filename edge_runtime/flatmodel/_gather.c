/* Copies the kept rows and columns of a three-dimensional array; see gather.py, which has the same in numpy. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Py_buffer view;
    int held;
} Borrowed;

static int borrow(PyObject *object, Borrowed *borrowed, int dimensions, int flags, const char *name)
{
    if (PyObject_GetBuffer(object, &borrowed->view, PyBUF_C_CONTIGUOUS | flags) < 0)
        return -1;
    borrowed->held = 1;
    if (borrowed->view.ndim != dimensions) {
        PyErr_Format(PyExc_ValueError, "%s has %d dimensions, not %d", name, borrowed->view.ndim, dimensions);
        return -1;
    }
    return 0;
}

static void give_back(Borrowed *borrowed)
{
    if (borrowed->held)
        PyBuffer_Release(&borrowed->view);
}

/* Indices are int64, ascending and below `limit`: what is read outside an array would be somebody else's memory. */
static int check_indices(const Borrowed *indices, Py_ssize_t limit)
{
    const int64_t *values = indices->view.buf;
    if (indices->view.itemsize != 8) {
        PyErr_SetString(PyExc_ValueError, "indices are not int64");
        return -1;
    }
    for (Py_ssize_t i = 0; i < indices->view.shape[0]; i++) {
        if (values[i] < 0 || values[i] >= limit || (i && values[i] <= values[i - 1])) {
            PyErr_Format(PyExc_IndexError, "index %lld is outside an axis of %zd, or out of order", (long long)values[i], limit);
            return -1;
        }
    }
    return 0;
}

/* What is copied, whatever the form: everything has been checked. */
typedef struct {
    char *to;
    const char *from;
    const int64_t *row_at;
    Py_ssize_t rows, middle, columns, width, itemsize; /* `width` is the number of columns of `from` */
    int32_t *column_at;
} Task;

#define PICK(type)                                                          \
    do {                                                                    \
        const type *source = (const type *)from;                            \
        type *target = (type *)to;                                          \
        for (Py_ssize_t j = 0; j < task->columns; j++)                      \
            target[j] = source[task->column_at[j]];                         \
    } while (0)

static void pick(const Task *task, char *to, const char *from)
{
    switch (task->itemsize) {
    case 1: PICK(uint8_t); break;
    case 2: PICK(uint16_t); break;
    case 4: PICK(uint32_t); break;
    default: PICK(uint64_t);
    }
}

/* Copy row by row from row `first` on. */
static void copy_rows(const Task *task, Py_ssize_t first)
{
    const Py_ssize_t line = task->width * task->itemsize, kept_line = task->columns * task->itemsize;
    char *to = task->to + first * task->middle * kept_line;
    for (Py_ssize_t i = first; i < task->rows; i++) {
        const char *from = task->from + task->row_at[i] * task->middle * line;
        if (task->columns == task->width) { /* ascending and distinct: then they are all of them */
            memcpy(to, from, (size_t)(task->middle * line));
            to += task->middle * line;
            continue;
        }
        for (Py_ssize_t m = 0; m < task->middle; m++, from += line, to += kept_line)
            pick(task, to, from);
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAS_AVX2 1

/* For each set of lanes out of eight (bit k: lane k): which lanes they are, in order, one byte each. */
static uint8_t lanes_of[256][8];

static void fill_lanes(void)
{
    for (int set = 0; set < 256; set++)
        for (int k = 0, n = 0; k < 8; k++)
            if (set >> k & 1)
                lanes_of[set][n++] = (uint8_t)k;
}

/* Copy columns of 4 bytes, eight at a time: the kept ones move to the front, and the next eight overwrite the rest.
   Return how many rows were copied: all but the last ones, behind which no 32 bytes of `to` are left to overwrite. */
__attribute__((target("avx2,popcnt"))) static Py_ssize_t copy_rows_avx2(const Task *task)
{
    const Py_ssize_t row_bytes = 4 * task->middle * task->columns, count = task->width / 8;
    const Py_ssize_t spare = row_bytes ? (32 + row_bytes - 1) / row_bytes : task->rows;
    const Py_ssize_t rows = task->rows > spare ? task->rows - spare : 0;
    uint8_t *sets = rows ? calloc((size_t)count + 1, 1) : NULL;
    if (sets == NULL)
        return 0;
    Py_ssize_t whole = 0; /* kept columns that lie in whole blocks of eight */
    for (; whole < task->columns && task->column_at[whole] < 8 * count; whole++)
        sets[task->column_at[whole] / 8] |= (uint8_t)(1 << task->column_at[whole] % 8);
    char *to = task->to;
    for (Py_ssize_t i = 0; i < rows; i++) {
        const char *from = task->from + 4 * task->row_at[i] * task->middle * task->width;
        /* Where the next kept row lies the processor cannot guess; asked for now, it is there when its turn comes. */
        const char *next = task->from + 4 * task->row_at[i + 1] * task->middle * task->width;
        for (Py_ssize_t m = 0; m < task->middle; m++, from += 4 * task->width, next += 4 * task->width) {
            for (Py_ssize_t b = 0; b < count; b++) {
                if (b % 2 == 0)
                    _mm_prefetch(next + 32 * b, _MM_HINT_T0);
                const __m256i front = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)lanes_of[sets[b]]));
                const __m256i values = _mm256_loadu_si256((const __m256i *)(from + 32 * b));
                _mm256_storeu_si256((__m256i *)to, _mm256_permutevar8x32_epi32(values, front));
                to += 4 * __builtin_popcount(sets[b]);
            }
            for (Py_ssize_t j = whole; j < task->columns; j++, to += 4)
                memcpy(to, from + 4 * task->column_at[j], 4);
        }
    }
    free(sets);
    return rows;
}
#endif

static void copy_all(const Task *task)
{
    Py_ssize_t done = 0;
#ifdef HAS_AVX2
    if (task->itemsize == 4 && task->columns < task->width && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt"))
        done = copy_rows_avx2(task);
#endif
    copy_rows(task, done);
}

static PyObject *gather(PyObject *module, PyObject *args)
{
    PyObject *out_object, *values_object, *rows_object, *columns_object, *result = NULL;
    Borrowed out = {.held = 0}, values = {.held = 0}, rows = {.held = 0}, columns = {.held = 0};
    int32_t *column_at = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOOO", &out_object, &values_object, &rows_object, &columns_object))
        return NULL;
    if (borrow(out_object, &out, 3, PyBUF_WRITABLE, "out") < 0 || borrow(values_object, &values, 3, 0, "values") < 0
        || borrow(rows_object, &rows, 1, 0, "rows") < 0 || borrow(columns_object, &columns, 1, 0, "columns") < 0)
        goto done;
    const Py_ssize_t *shape = values.view.shape, itemsize = values.view.itemsize;
    const Py_ssize_t kept_rows = rows.view.shape[0], kept_columns = columns.view.shape[0];
    if (check_indices(&rows, shape[0]) < 0 || check_indices(&columns, shape[2]) < 0)
        goto done;
    if (out.view.itemsize != itemsize || out.view.shape[0] != kept_rows || out.view.shape[1] != shape[1]
        || out.view.shape[2] != kept_columns || shape[2] > INT32_MAX
        || (itemsize != 1 && itemsize != 2 && itemsize != 4 && itemsize != 8)) {
        PyErr_SetString(PyExc_ValueError, "out does not fit values, rows and columns");
        goto done;
    }
    column_at = PyMem_Malloc((size_t)(kept_columns ? kept_columns : 1) * sizeof *column_at);
    if (column_at == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t j = 0; j < kept_columns; j++)
        column_at[j] = (int32_t)((const int64_t *)columns.view.buf)[j];
    const Task task = {
        .to = out.view.buf, .from = values.view.buf, .row_at = rows.view.buf, .rows = kept_rows, .middle = shape[1],
        .columns = kept_columns, .width = shape[2], .itemsize = itemsize, .column_at = column_at,
    };
    Py_BEGIN_ALLOW_THREADS
    copy_all(&task);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(column_at);
    give_back(&out);
    give_back(&values);
    give_back(&rows);
    give_back(&columns);
    return result;
}

static PyMethodDef methods[] = {
    {"gather", gather, METH_VARARGS, "gather(out, values, rows, columns): out[i, m, j] = values[rows[i], m, columns[j]]"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_gather", "Copies kept rows and columns.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__gather(void)
{
#ifdef HAS_AVX2
    fill_lanes();
#endif
    return PyModule_Create(&definition);
}
