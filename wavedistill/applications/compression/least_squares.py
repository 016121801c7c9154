"""Recursive least squares in a stated order of operations: the predictors that adapt while a file is coded."""

from __future__ import annotations


def dot(a, b, n):
    """sum a_i b_i over the first n (a multiple of 4), in four sums."""
    s0 = 0.0
    s1 = 0.0
    s2 = 0.0
    s3 = 0.0
    for i in range(0, n, 4):
        s0 += a[i] * b[i]
        s1 += a[i + 1] * b[i + 1]
        s2 += a[i + 2] * b[i + 2]
        s3 += a[i + 3] * b[i + 3]
    return (s0 + s1) + (s2 + s3)


def accumulate(covariance, correlation, x, y, n, forgetting, weight):
    """covariance = forgetting * covariance + weight x x^T (its upper triangle), and the same of x y for correlation."""
    for i in range(n):
        scaled = weight * x[i]
        correlation[i] = forgetting * correlation[i] + scaled * y
        row = covariance[i]
        for j in range(i, n):
            row[j] = forgetting * row[j] + scaled * x[j]


def solve(covariance, correlation, ridge, n, triangle, right, solution):
    """solution = (covariance + ridge I)^-1 correlation by elimination; ``triangle`` and ``right`` are scratch."""
    for i in range(n):
        right[i] = correlation[i]
        row = triangle[i]
        for j in range(i, n):
            row[j] = covariance[i, j]
        row[i] += ridge
    for k in range(n):
        pivots = triangle[k]
        inverse = 1.0 / pivots[k]
        for i in range(k + 1, n):
            factor = pivots[i] * inverse
            row = triangle[i]
            for j in range(i, n):
                row[j] -= factor * pivots[j]
            right[i] -= factor * right[k]
    for k in range(n - 1, -1, -1):
        total = right[k]
        row = triangle[k]
        for j in range(k + 1, n):
            total -= row[j] * solution[j]
        solution[k] = total / row[k]
