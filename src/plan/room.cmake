include(${CMAKE_SOURCE_DIR}/cmake/embed.cmake)
file(GLOB_RECURSE catalog_files CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/catalog/*.csv ${CMAKE_SOURCE_DIR}/catalog/*.toml
     ${CMAKE_SOURCE_DIR}/catalog/*.json)
stoker_embed(${ROOM_TARGET} catalog ROOT ${CMAKE_SOURCE_DIR}/catalog FILES ${catalog_files})
stoker_embed(${ROOM_TARGET} plan_page ROOT ${CMAKE_CURRENT_SOURCE_DIR}/plan FILES ${CMAKE_CURRENT_SOURCE_DIR}/plan/plan_report.html)
# Charts of `stoker plan --html`: Chart.js, MIT licence, from Debian's libjs-chart.js.
find_file(CHART_JS chart.min.js PATHS /usr/share/javascript/chart.js NO_DEFAULT_PATH)
if(NOT CHART_JS)
  message(FATAL_ERROR "chart.min.js not found: apt-get install libjs-chart.js (./dev build does)")
endif()
get_filename_component(chart_dir ${CHART_JS} DIRECTORY)
stoker_embed(${ROOM_TARGET} chart_library ROOT ${chart_dir} FILES ${CHART_JS})
target_link_libraries(${ROOM_TARGET} PRIVATE PkgConfig::TOMLPP)
