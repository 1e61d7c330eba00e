"""GLSL of :mod:`.gpu_rasteriser`: one program draws samples, one averages them into pixels."""

from __future__ import annotations

__all__ = ["DRAW_FRAGMENT", "DRAW_VERTEX", "RESOLVE_FRAGMENT", "RESOLVE_VERTEX"]

DRAW_VERTEX = """
#version 330
uniform mat3 to_camera;   // rows: right, up, backward
uniform vec3 eye;
uniform vec4 lens;        // 2 f / width, 2 f / height, near, far
in vec3 in_position; in vec3 in_normal; in vec2 in_uv; in vec4 in_color; in vec3 in_flat;
out vec3 to_point; out vec3 normal; out vec2 uv; out vec4 color; flat out vec3 flat_normal;
void main() {
    to_point = in_position - eye;  // differences keep their digits when the camera is far away
    vec3 local = to_camera * to_point;
    float z = -local.z;
    // Row 0 is the top of the image and the first row in memory: y points down.
    gl_Position = vec4(lens.x * local.x, -lens.y * local.y,
                       ((lens.w + lens.z) * z - 2.0 * lens.w * lens.z) / (lens.w - lens.z), z);
    normal = in_normal; uv = in_uv; color = in_color; flat_normal = in_flat;
}
"""

DRAW_FRAGMENT = """
#version 330
uniform sampler2D image;
uniform bool textured, blended, masked, colored;
uniform vec4 factor;
uniform float cutoff;
uniform int shading;
uniform vec4 world_light;  // direction, ambient share
uniform float headlight_ambient;
in vec3 to_point; in vec3 normal; in vec2 uv; in vec4 color; flat in vec3 flat_normal;
layout(location = 0) out vec4 out_color;
layout(location = 1) out vec4 out_geometry;  // normal, distance

vec3 decode(vec3 c) {
    return mix(pow((max(c, 0.04045) + 0.055) / 1.055, vec3(2.4)), c / 12.92, lessThanEqual(c, vec3(0.04045)));
}
vec3 encode(vec3 c) {
    return mix(1.055 * pow(max(c, 0.0031308), vec3(1.0 / 2.4)) - 0.055, c * 12.92, lessThanEqual(c, vec3(0.0031308)));
}
void main() {
    vec4 base = factor;
    float exact_alpha = factor.a;
    if (textured) {
        vec4 texel = texture(image, uv);
        base = vec4(texel.rgb, base.a * texel.a);
        exact_alpha *= textureLod(image, uv, 0.0).a;
    }
    if (colored) {
        base = vec4(encode(decode(base.rgb) * decode(color.rgb)), base.a * color.a);
        exact_alpha *= color.a;
    }
    if ((masked && exact_alpha < cutoff) || ((masked || blended) && exact_alpha <= 0.0)) discard;
    vec3 toward = normalize(to_point);
    vec3 side = dot(flat_normal, toward) > 0.0 ? -flat_normal : flat_normal;
    float agreement = dot(normal, side);
    vec3 n = normalize(agreement == 0.0 ? side : (agreement < 0.0 ? -normal : normal));
    float light = 1.0;
    if (shading == 1) light = headlight_ambient + (1.0 - headlight_ambient) * max(-dot(n, toward), 0.0);
    if (shading == 2) light = world_light.w + (1.0 - world_light.w) * 0.5 * (1.0 + dot(n, world_light.xyz));
    float alpha = blended ? base.a : 1.0;
    out_color = vec4(base.rgb * light * alpha, alpha);
    float away = dot(n, toward);
    if (away > 0.0) n = normalize(n - away * toward);
    out_geometry = vec4(n, length(to_point));
}
"""

RESOLVE_VERTEX = """
#version 330
void main() { gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0); }
"""

RESOLVE_FRAGMENT = """
#version 330
uniform sampler2D colors;
uniform sampler2D geometry;
uniform int side;
layout(location = 0) out vec4 out_color;
layout(location = 1) out vec4 out_geometry;
void main() {
    ivec2 corner = ivec2(gl_FragCoord.xy) * side;
    vec4 total = vec4(0.0), nearest = vec4(0.0);
    float best = 1e9;
    for (int y = 0; y < side; ++y) for (int x = 0; x < side; ++x) {
        total += texelFetch(colors, corner + ivec2(x, y), 0);
        vec4 sampled = texelFetch(geometry, corner + ivec2(x, y), 0);
        vec2 offset = vec2(2 * x - side + 1, 2 * y - side + 1);
        if (sampled.w > 0.0 && dot(offset, offset) < best) { best = dot(offset, offset); nearest = sampled; }
    }
    out_color = total / float(side * side);
    out_geometry = nearest;
}
"""
