// The distillation loss at the logits. Agrees with the objective's soft_target.rs (Hinton et al., 2015) and
// hard_label.rs.

/// Largest logit / temperature of a row, and the log of the sum of exponentials above it. One warp.
__device__ __forceinline__ void log_normaliser(const float* logits, int classes, float inverse_temperature,
                                               float& largest, float& log_sum) {
    largest = -INFINITY;
    for (int c = threadIdx.x % 32; c < classes; c += 32) largest = fmaxf(largest, logits[c] * inverse_temperature);
    largest = warp_max(largest);
    float sum = 0.0f;
    for (int c = threadIdx.x % 32; c < classes; c += 32) sum += expf(logits[c] * inverse_temperature - largest);
    log_sum = logf(warp_sum(sum));
}

/// Soft-target and hard-label loss of each row, and their weighted gradient.
///
/// student, teacher [B, C] logits; teacher may be null; labels [B], negative for none; d_logits [B, C] out;
/// row_losses [B, 2] out: temperature^2 KL(teacher || student) and cross-entropy, unweighted. One warp a row.
TYPED_KERNEL(soft_hard_loss, 128, const float* __restrict__ student, const float* __restrict__ teacher,
             const int* __restrict__ labels, float soft_weight, float temperature, float hard_weight,
             T* __restrict__ d_logits, float* __restrict__ row_losses, int rows, int classes) {
    const int lane = threadIdx.x % 32;
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    student += static_cast<size_t>(row) * classes;
    d_logits += static_cast<size_t>(row) * classes;
    const int label = labels ? labels[row] : -1;

    float soft = 0.0f, hard = 0.0f;
    float inverse = 1.0f / temperature;
    float student_largest = 0.0f, student_log = 0.0f, teacher_largest = 0.0f, teacher_log = 0.0f;
    if (teacher) {
        teacher += static_cast<size_t>(row) * classes;
        log_normaliser(student, classes, inverse, student_largest, student_log);
        log_normaliser(teacher, classes, inverse, teacher_largest, teacher_log);
    }
    float largest = 0.0f, log_sum = 0.0f;
    if (label >= 0) log_normaliser(student, classes, 1.0f, largest, log_sum);
    for (int c = lane; c < classes; c += 32) {
        float gradient = 0.0f;
        if (teacher) {
            const float student_log_probability = student[c] * inverse - student_largest - student_log;
            const float teacher_log_probability = teacher[c] * inverse - teacher_largest - teacher_log;
            const float expected = expf(teacher_log_probability);
            soft += expected * (teacher_log_probability - student_log_probability);
            gradient += soft_weight * temperature * (expf(student_log_probability) - expected);
        }
        if (label >= 0) {
            const float log_probability = student[c] - largest - log_sum;
            if (c == label) hard -= log_probability;
            gradient += hard_weight * (expf(log_probability) - (c == label ? 1.0f : 0.0f));
        }
        d_logits[c] = from_float<T>(gradient);
    }
    soft = warp_sum(soft) * temperature * temperature;
    hard = warp_sum(hard);
    if (lane == 0) row_losses[2 * row] = soft, row_losses[2 * row + 1] = hard;
}
