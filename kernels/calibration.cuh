// From the index of a digitizer's sample to m/z: gpuconvert/calibration.py has the formulas.
// The same operations in the same order; all but the exponential of model 2 are rounded correctly.
#pragma once

enum ModelKind { CHORD = 0, MODEL_1 = 1, MODEL_2 = 2 };

enum { MOST_TERMS = 7, NEWTON_STEPS = 12 };

// One row of `models`; its layout is that of gpuconvert/calibration.py.
struct Model {
    double kind;               // a ModelKind
    double timebase, delay;    // ns for an index, ns
    double c0, c1, c2, c3, c4; // of a chord, c0 + c1 index is the square root of m/z
    double low, high;          // m/z between which the correction varies, Th
    double terms[MOST_TERMS];  // of its polynomial, from the constant on
};

// m/z by model 1; by model 2 before its correction.
__device__ inline double base_mz(double index, const Model& model, double factor) {
    const double b = sqrt(1e12 / (model.c1 * factor));
    const double c2 = model.c2 / factor;
    const double d = index * model.timebase + model.delay - model.c0;
    double s = 2 * d / (b + sqrt(b * b + 4 * c2 * d));
    const double c3 = model.c3;
    if (c3 != 0) {
        for (int n = 0; n < NEWTON_STEPS; ++n) {
            const double step = (((c3 * s + c2) * s + b) * s - d) / ((3 * c3 * s + 2 * c2) * s + b);
            s -= step;
            if (fabs(step) <= 1e-16 * fabs(s)) break;
        }
    }
    return s * s - model.c4;
}

// The m/z of an index, Th; `factor` is that of the temperatures of its frame.
__device__ inline double mz_of(double index, const Model& model, double factor) {
    if (model.kind == CHORD) {
        const double root = model.c0 + model.c1 * index;
        return root * root;
    }
    const double mz = base_mz(index, model, factor);
    if (model.kind == MODEL_1) return mz;
    const double above = mz < model.low ? model.low : mz;
    const double x = above > model.high ? model.high : above;
    double correction = 0;
    for (int k = MOST_TERMS - 1; k >= 0; --k) correction = correction * x + model.terms[k];
    return mz - correction * exp(-((mz - x) * (mz - x)));
}
